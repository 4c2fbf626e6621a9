"""Failures are shown with what is known of them, and people decide what becomes of them."""

from collections.abc import Callable

import pytest
from sqlalchemy import text

from fixtures.catalog_rows import start_run
from tests.plugins.pages.conftest import HOSTILE, BrowsedShop, Role, Visitor, read_text

Visit = Callable[[Role | None], Visitor]
STATE = "SELECT retry_asked_by, ignored_by FROM catalog.item_failures"


@pytest.fixture
def failed(browsed: BrowsedShop) -> int:
    """The photo without a tag failed, with hostile words."""
    image_id = browsed.image_ids[4]
    with browsed.shop.connections.engine.begin() as connection:
        space: int = connection.execute(text("SELECT catalog.live_space()")).scalar_one()
        start_run(connection, browsed.classifier, space, "run")
        connection.execute(
            text("""
                INSERT INTO catalog.item_failures (image_id, etag, stage, reason, detail, run_id, attempts)
                VALUES (:image, 'e', 'decode', 'truncated', :detail, 'run', 3)
            """),
            {"image": image_id, "detail": HOSTILE},
        )
    return image_id


def test_failures_are_shown(visit: Visit, failed: int) -> None:
    page = visit("viewer").get("failures").text
    assert "truncated while it was decoded" in read_text(page)
    assert f"/thumbnails/{failed}" in page
    assert "<script>alert" not in page
    assert "checkbox" not in page


def test_a_retry_and_an_ignoring_are_recorded_in_the_name_of_who_asked(
    visit: Visit, failed: int, browsed: BrowsedShop
) -> None:
    reviewer = visit("user")
    assert reviewer.post("failures", {"image": [failed], "decision": "retry"}).status_code == 303
    assert browsed.shop.query(STATE) == [("user@example.test", None)]
    assert "user@example.test asks for another attempt" in reviewer.get("failures").text
    assert reviewer.post("failures", {"image": [failed], "decision": "ignore"}).status_code == 303
    assert browsed.shop.query(STATE) == [(None, "user@example.test")]
    assert "No photo has failed" in reviewer.get("failures").text
    assert "ignored by user@example.test" in reviewer.get("failures", ignored=True).text
    back = reviewer.post("failures", {"image": [failed], "decision": "retry", "ignored": "true"})
    assert back.headers["location"] == "/catalog/failures?ignored=True"
    assert browsed.shop.query(STATE) == [("user@example.test", None)]


@pytest.mark.parametrize(
    "data", [{"decision": "retry"}, {"image": ["x"], "decision": "retry"}, {"image": ["1"], "decision": "drop"}]
)
def test_forms_that_make_no_sense_change_nothing(
    visit: Visit, failed: int, browsed: BrowsedShop, data: dict[str, object]
) -> None:
    assert visit("user").post("failures", data).status_code == 422
    assert browsed.shop.query(STATE) == [(None, None)]
