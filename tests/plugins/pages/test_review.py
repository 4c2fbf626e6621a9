"""The review page: answers are stored in the name of the user who gave them."""

import html
import re

import pytest
from sqlalchemy import text

from jobs.database.reviews import Answer
from jobs.review.answers import record_answers
from jobs.review.queue import ReviewQueue
from tests.plugins.pages.conftest import HOSTILE, BrowsedShop, Visit, Visitor, read_text

CURRENT = "SELECT category, source FROM catalog.current_image_tags WHERE image_id = :id"


def read_forms(page: str) -> list[tuple[str, dict[str, str]]]:
    """Return the address of each form, with the values of its fields and checkboxes."""
    forms = []
    for action, body in re.findall(r'<form[^>]*action="/catalog/([^"]+)"[^>]*>(.*?)</form>', page, re.DOTALL):
        fields = re.findall(r'<input type="(?:hidden|checkbox)" name="([^"]+)" value="([^"]*)"', body)
        forms.append((action, {name: html.unescape(value) for name, value in fields}))
    return forms


def ask(visitor: Visitor, reason: str = "low_confidence") -> tuple[str, dict[str, str]]:
    return next(form for form in read_forms(visitor.get("review", only=reason).text) if form[0] == "review")


def test_an_answer_becomes_current_and_can_be_undone(visit: Visit, browsed: BrowsedShop) -> None:
    reviewer = visit("user")
    action, fields = ask(reviewer)
    assert int(fields["image_id"]) == browsed.image_ids[1]
    answer = reviewer.post(action, fields | {"answer": "shoes"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/catalog/review?only=low_confidence")
    assert browsed.shop.query(CURRENT, id=browsed.image_ids[1]) == [("shoes", "human")]
    assert browsed.shop.query("SELECT labeled_by FROM catalog.labels") == [("user@example.test",)]
    page = reviewer.get("review").text
    assert "image" in read_text(page)
    assert ": shoes , not hat" in read_text(page)
    [undo] = {action for action, _ in read_forms(page) if action.endswith("/undo")}
    assert reviewer.post(undo).status_code == 303
    assert browsed.shop.query(CURRENT, id=browsed.image_ids[1]) == [("hat", "model")]
    again = reviewer.post(undo)
    assert (again.status_code, "already undone" in again.text) == (409, True)


def test_several_predictions_are_accepted_together(visit: Visit, browsed: BrowsedShop) -> None:
    reviewer = visit("user")
    page = reviewer.get("review").text
    accepted = [html.unescape(value) for value in re.findall(r'name="accepted" form="accept" value="([^"]+)"', page)]
    assert len(accepted) == 3
    assert reviewer.post("review/accept", {"accepted": accepted}).status_code == 303
    rows = browsed.shop.query("""
        SELECT l.image_id, l.category = t.category, l.labeled_by
        FROM catalog.labels l JOIN catalog.image_tags t USING (image_id) ORDER BY 1
    """)
    assert [(str(row[0]), row[1], row[2]) for row in rows] == sorted(
        (value.split()[0], True, "user@example.test") for value in accepted
    )


def test_skipping_shows_the_next_image(visit: Visit, browsed: BrowsedShop) -> None:
    reviewer = visit("user")
    first = ask(reviewer, "audit")[1]["image_id"]
    page = reviewer.get("review", only="audit", skip=first).text
    second = next(fields for action, fields in read_forms(page) if action == "review")
    assert second["image_id"] != first
    assert second["skip"] == first
    answer = reviewer.post("review", second | {"answer": "not clothing"})
    assert answer.headers["location"] == f"/catalog/review?only=audit&skip={first}"
    assert "1 more were skipped" in read_text(reviewer.get("review").text)


@pytest.mark.parametrize(
    ("page", "data", "status_code", "words"),
    [
        ("review", {"image_id": "1", "reason": "audit", "answer": HOSTILE}, 409, "There is no category"),
        ("review", {"image_id": "999999", "reason": "audit", "answer": "hat"}, 409, "is gone"),
        ("review", {"image_id": "x", "reason": "audit", "answer": "hat"}, 422, "Go back"),
        ("review", {"image_id": "1", "reason": "because", "answer": "hat"}, 422, "Go back"),
        ("review", {"image_id": "1", "reason": "audit", "answer": "hat", "only": HOSTILE, "skip": "-7"}, 303, ""),
        ("review/accept", {}, 422, "Go back"),
        ("review/accept", {"accepted": [f"1 audit {HOSTILE}"]}, 409, "There is no category"),
        ("review/accept", {"accepted": ["1"]}, 422, "not on this page"),
        ("review/accept", {"accepted": ["1\u0663 audit hat"]}, 422, "not on this page"),
        ("review/answers/12345/undo", {}, 409, "no answer 12345"),
    ],
)
def test_invalid_forms_are_explained(
    visit: Visit, browsed: BrowsedShop, page: str, data: dict[str, str], status_code: int, words: str
) -> None:
    known = str(browsed.image_ids[0])
    answer = visit("user").post(page, {**data, **({"image_id": known} if data.get("image_id") == "1" else {})})
    assert answer.status_code == status_code
    assert words in html.unescape(answer.text)
    assert "<script>alert" not in answer.text
    assert answer.headers.get("location", "/catalog/review").startswith("/catalog/review")


def test_viewers_see_no_forms(visit: Visit, browsed: BrowsedShop) -> None:
    page = visit("viewer").get("review").text
    assert read_forms(page) == []
    assert "You may view this page" in page
    assert 'name="answer"' not in page
    assert 'name="answer"' in visit("user").get("review").text


def test_the_overview_shows_the_review_queue(visit: Visit, browsed: BrowsedShop) -> None:
    words = read_text(visit("viewer").get("overview").text)
    # The same total as on the review page, although some images wait for several reasons.
    assert "0 of 4 answered" in read_text(visit("user").get("review").text)
    assert "images to review 4 low confidence , images disagree , audit" in words


def read_asked(visitor: Visitor, **query: str) -> str | None:
    """Return the id of the image that the page asks about, or None."""
    found = re.search(r'name="image_id" value="(\d+)"', visitor.get("review", **query).text)
    return found[1] if found else None


def read_shared_queue() -> ReviewQueue:
    """Return the queue that the pages share."""
    from catalog_airflow.pages.catalog_access import read_catalog, read_queue

    with read_catalog() as connection:
        return read_queue(connection)


def list_next(visitor: Visitor) -> set[str]:
    """Return the ids of the images that are up next."""
    return set(re.findall(r'name="accepted" form="accept" value="(\d+)', visitor.get("review").text))


def test_two_people_never_see_the_same_image(visit: Visit, browsed: BrowsedShop) -> None:
    ann, bob = visit("user"), visit("op")
    first = read_asked(ann)
    assert first == read_asked(ann)
    second = read_asked(bob)
    assert second not in {None, first}
    assert first not in list_next(bob)
    assert second not in list_next(ann)
    # Skipping gives the image back, and an answer gives the claim back.
    skipped = read_asked(ann, skip=str(first))
    assert skipped not in {None, first, second}
    assert browsed.shop.query("SELECT count(*) FROM catalog.review_claims WHERE image_id = :id", id=first) == [(0,)]
    ann.post("review", {"image_id": str(skipped), "reason": "audit", "answer": "hat"})
    assert browsed.shop.query("SELECT claimed_by FROM catalog.review_claims") == [("op@example.test",)]


def test_the_queue_is_kept_while_its_images_are_claimed_or_skipped(visit: Visit, browsed: BrowsedShop) -> None:
    ann, bob = visit("user"), visit("op")
    image = str(read_asked(ann, only="images_disagree"))
    found = read_shared_queue().by_reason
    assert "Nothing to review for this reason" in read_text(bob.get("review", only="images_disagree").text)
    assert "skipped the other images" in read_text(ann.get("review", only="images_disagree", skip=image).text)
    assert read_shared_queue().by_reason is found


def test_the_queue_is_found_again_if_another_server_stored_all_answers(visit: Visit, browsed: BrowsedShop) -> None:
    reviewer = visit("user")
    image_id = int(read_asked(reviewer, only="images_disagree") or 0)
    with browsed.shop.connections.engine.begin() as connection:
        record_answers(connection, [Answer(image_id, "images_disagree", "dress")], "somebody@example.test")
    words = read_text(reviewer.get("review", only="images_disagree").text)
    assert "images disagree 0" in words
    assert "Nothing to review for this reason" in words


def test_a_claim_expires(visit: Visit, browsed: BrowsedShop) -> None:
    first = read_asked(visit("user"))
    assert read_asked(visit("op")) != first
    with browsed.shop.connections.engine.begin() as connection:
        connection.execute(text("UPDATE catalog.review_claims SET expires_at = now()"))
    assert read_asked(visit("admin")) == first
    assert read_asked(visit("user")) != first


def test_viewers_claim_nothing(visit: Visit, browsed: BrowsedShop) -> None:
    visit("viewer").get("review")
    assert browsed.shop.query("SELECT count(*) FROM catalog.review_claims") == [(0,)]


def test_the_progress_counts_answers_of_this_sitting(visit: Visit, browsed: BrowsedShop) -> None:
    reviewer = visit("user")
    assert "0 of 4 answered" in read_text(reviewer.get("review").text)
    assert "0 of 2 answered" in read_text(reviewer.get("review", only="low_confidence").text)
    action, fields = ask(reviewer)
    reviewer.post(action, fields | {"answer": "shoes"})
    assert "1 of 4 answered" in read_text(reviewer.get("review").text)
    assert "1 of 2 answered" in read_text(reviewer.get("review", only="low_confidence").text)
    with browsed.shop.connections.engine.begin() as connection:
        connection.execute(text("UPDATE catalog.reviews SET reviewed_at = now() - interval '31 minutes'"))
    assert "0 of 3 answered" in read_text(reviewer.get("review").text)


def test_the_last_answers_are_named_and_undone_together(visit: Visit, browsed: BrowsedShop) -> None:
    reviewer = visit("user")
    accepted = [f"{image_id} audit hat" for image_id in browsed.image_ids[1:4]]
    reviewer.post("review/accept", {"accepted": accepted})
    page = reviewer.get("review").text
    assert "hat for 3 images" in read_text(page)
    undo = next((action, fields) for action, fields in read_forms(page) if "together" in fields)
    assert reviewer.post(*undo).status_code == 303
    assert browsed.shop.query("SELECT count(*) FROM catalog.labels") == [(0,)]


def test_the_rest_of_a_batch_is_undone_after_a_part_of_it(visit: Visit, browsed: BrowsedShop) -> None:
    reviewer = visit("user")
    accepted = [f"{image_id} audit hat" for image_id in browsed.image_ids[1:4]]
    reviewer.post("review/accept", {"accepted": accepted})
    [first] = browsed.shop.query("SELECT max(review_id) FROM catalog.reviews")[0]
    assert reviewer.post(f"review/answers/{first}/undo").status_code == 303
    page = reviewer.get("review").text
    assert "hat for 2 images" in read_text(page)
    undo = next((action, fields) for action, fields in read_forms(page) if "together" in fields)
    assert reviewer.post(*undo).status_code == 303
    assert browsed.shop.query("SELECT count(*) FROM catalog.labels") == [(0,)]
    again = reviewer.post(*undo)
    assert (again.status_code, "already undone" in again.text) == (409, True)


def test_the_other_images_of_the_product_are_shown(visit: Visit, browsed: BrowsedShop) -> None:
    page = visit("user").get("review", only="low_confidence").text
    siblings = page[page.index('class="siblings"') :].partition("</ul>")[0]
    assert re.findall(r"/zoom/(\d+)", siblings) == [str(browsed.image_ids[0])]


def test_the_next_images_are_preloaded(visit: Visit, browsed: BrowsedShop) -> None:
    reviewer = visit("user")
    preloaded = re.findall(r'rel="preload" as="image" [^>]*href="/catalog/zoom/(\d+)"', reviewer.get("review").text)
    assert len(preloaded) == 2
    assert read_asked(reviewer, skip=read_asked(reviewer) or "") == preloaded[0]
