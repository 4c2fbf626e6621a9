"""Corrections on the pages that show tags: rights, all or nothing, undo, and the address that a form returns to."""

import html

import pytest

from fixtures.catalog_rows import delete_images
from tests.plugins.pages.conftest import BrowsedShop, Visit, read_text

CURRENT = "SELECT image_id, category FROM catalog.current_image_tags WHERE source = 'human' ORDER BY 1"


def test_several_images_are_relabeled_and_undone_together(visit: Visit, browsed: BrowsedShop) -> None:
    reviewer, chosen = visit("user"), browsed.image_ids[1:4]
    form = {"address": "images?category=hat", "image": [str(one) for one in chosen], "answer": "dress"}
    answer = reviewer.post("corrections", form)
    assert answer.status_code == 303
    assert answer.headers["location"].startswith("/catalog/images?category=hat&corrected=")
    assert browsed.shop.query(CURRENT) == [(image_id, "dress") for image_id in chosen]
    assert browsed.shop.query("SELECT DISTINCT reason, reviewed_by FROM catalog.reviews") == [
        ("correction", "user@example.test")
    ]
    address = answer.headers["location"].removeprefix("/catalog/")
    page = reviewer.get(address).text
    assert "Relabeled 3 images as dress" in read_text(page)
    review_id = address.rpartition("=")[2]
    # The report is only for the person who made the correction.
    assert "Relabeled" not in visit("op").get(address).text
    assert visit("op").post(f"corrections/{review_id}/undo", {"address": "images"}).status_code == 409
    undone = reviewer.post(f"corrections/{review_id}/undo", {"address": "images"})
    assert undone.headers["location"] == f"/catalog/images?corrected={review_id}"
    assert browsed.shop.query(CURRENT) == []
    assert "3 images have their previous tag again" in read_text(reviewer.get(f"images?corrected={review_id}").text)


def test_all_images_are_relabeled_or_none(visit: Visit, browsed: BrowsedShop) -> None:
    reviewer, images = visit("user"), browsed.image_ids
    with browsed.shop.connections.engine.begin() as connection:
        delete_images(connection, [images[3]])
    for chosen, category, words in (
        ([images[0], images[3]], "dress", "is gone"),
        ([images[0], images[4]], "dress", "has no tag"),
        ([images[0]], "no such", "There is no category"),
    ):
        form = {"address": "images", "image": [str(one) for one in chosen], "answer": category}
        answer = reviewer.post("corrections", form)
        assert (answer.status_code, words in html.unescape(answer.text)) == (409, True)
    assert reviewer.post("corrections", {"address": "images", "answer": "dress"}).status_code == 422
    assert browsed.shop.query("SELECT count(*) FROM catalog.labels") == [(0,)]


@pytest.mark.parametrize(
    "address",
    [
        "https://evil.test/images",
        "//evil.test/images",
        "/images",
        "../images",
        "images/../../elsewhere",
        "images\r\nSet-Cookie: x=y",
        "images?x=\n",
        "models",
        "",
    ],
)
def test_a_form_returns_only_to_pages_with_images(visit: Visit, browsed: BrowsedShop, address: str) -> None:
    form = {"address": address, "image": str(browsed.image_ids[0]), "answer": "hat"}
    answer = visit("user").post("corrections", form)
    assert answer.status_code == 422
    assert "location" not in answer.headers
    assert browsed.shop.query("SELECT count(*) FROM catalog.labels") == [(0,)]


@pytest.mark.parametrize("page", ["images", "product?id=P1", "search?like=P1"])
def test_only_reviewers_have_controls(visit: Visit, browsed: BrowsedShop, page: str) -> None:
    for role, is_shown in (("viewer", False), ("user", True)):
        shown = visit(role).get(page).text  # type: ignore[arg-type]
        assert ('name="image" value=' in shown, "data-correct" in shown, 'id="relabel"' in shown) == (is_shown,) * 3
    assert f'name="address" value="{html.escape(page)}"' in visit("user").get(page).text
    # The last image has no tag, so it cannot be corrected.
    assert f'name="image" value="{browsed.image_ids[4]}"' not in visit("user").get("images").text


def test_a_correction_replaces_the_answer_of_somebody_else(visit: Visit, browsed: BrowsedShop) -> None:
    image = str(browsed.image_ids[1])
    visit("op").post("review", {"image_id": image, "reason": "low_confidence", "answer": "shoes"})
    page = read_text(visit("user").get("images").text)
    assert "Reviewed by op@example.test" in page
    assert visit("user").post("corrections", {"address": "images", "image": image, "answer": "hat"}).status_code == 303
    assert browsed.shop.query(CURRENT) == [(int(image), "hat")]
    page = read_text(visit("viewer").get("product?id=P1").text)
    # The product, and its image.
    assert page.count("hat Reviewed by user@example.test") == 2


def test_corrections_do_not_start_the_audit(visit: Visit, browsed: BrowsedShop) -> None:
    form = {"address": "images", "image": [str(one) for one in browsed.image_ids[:4]], "answer": "dress"}
    visit("user").post("corrections", form)
    assert "no random image has an answer yet" in read_text(visit("viewer").get("review").text)


def test_a_corrected_image_leaves_the_queue_and_an_undo_returns_it(visit: Visit, browsed: BrowsedShop) -> None:
    reviewer, image = visit("user"), browsed.image_ids[1]
    asked = f'name="image_id" value="{image}"'
    assert asked in reviewer.get("review", only="low_confidence").text
    answer = reviewer.post("corrections", {"address": "images", "image": str(image), "answer": "dress"})
    page = reviewer.get("review", only="low_confidence").text
    assert asked not in page
    assert "low confidence 1" in read_text(page)
    review_id = answer.headers["location"].rpartition("=")[2]
    reviewer.post(f"corrections/{review_id}/undo", {"address": "images"})
    page = reviewer.get("review", only="low_confidence").text
    assert asked in page
    assert "low confidence 2" in read_text(page)
