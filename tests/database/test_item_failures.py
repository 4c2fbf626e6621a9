"""What people decide about failures is what the next runs do, and what the figures count."""

import pytest

from fixtures.shop import Shop, make_image
from jobs.database.item_failures import ignore_failures, retry_failures
from jobs.ingest.ingest import ingest
from jobs.ingest.plan import IngestOptions, preview_run

SUMMARY = "SELECT reason, images FROM catalog.item_failure_summary"


@pytest.fixture
def failed(tagging_shop: Shop) -> int:
    """An image and a page; the page's image."""
    tagging_shop.put_images(1)
    tagging_shop.put("broken.jpg", b"<html>")
    ingest(tagging_shop.connections, IngestOptions())
    [(image_id,)] = tagging_shop.query("SELECT image_id FROM catalog.item_failures")
    return int(image_id)


def count_due(shop: Shop) -> int:
    return preview_run(shop.connections, IngestOptions()).entries


def decide(shop: Shop, decision: str, image_ids: list[int]) -> int:
    with shop.connections.engine.begin() as connection:
        return {"retry": retry_failures, "ignore": ignore_failures}[decision](connection, image_ids, "ann")


def test_a_retry_is_one_more_attempt(tagging_shop: Shop, failed: int) -> None:
    assert count_due(tagging_shop) == 0
    assert decide(tagging_shop, "retry", [failed]) == 1
    assert preview_run(tagging_shop.connections, IngestOptions()).entries_by_reason == {"retry": 1}
    ingest(tagging_shop.connections, IngestOptions())
    assert tagging_shop.query("SELECT attempts, retry_requested_by FROM catalog.item_failures") == [(2, None)]
    assert count_due(tagging_shop) == 0


def test_what_is_ignored_is_neither_counted_nor_asked_until_its_bytes_change(tagging_shop: Shop, failed: int) -> None:
    assert tagging_shop.query(SUMMARY) == [("unsupported_format", 1)]
    # Also what time would cure.
    with tagging_shop.connections.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE catalog.item_failures SET reason = 'access_denied'")
    assert count_due(tagging_shop) == 1
    assert decide(tagging_shop, "ignore", [failed]) == 1
    assert count_due(tagging_shop) == 0
    assert tagging_shop.query(SUMMARY) == []
    tagging_shop.put("broken.jpg", b"<html>another")
    assert count_due(tagging_shop) == 1
    ingest(tagging_shop.connections, IngestOptions())
    assert tagging_shop.query(SUMMARY) == [("unsupported_format", 1)]
    assert tagging_shop.query("SELECT ignored_by FROM catalog.item_failures") == [(None,)]


def test_the_last_decision_counts(tagging_shop: Shop, failed: int) -> None:
    for decision, due in (("ignore", 0), ("retry", 1), ("ignore", 0)):
        decide(tagging_shop, decision, [failed])
        assert count_due(tagging_shop) == due


def test_what_was_mended_is_no_longer_decided_on(tagging_shop: Shop, failed: int) -> None:
    decide(tagging_shop, "ignore", [failed])
    tagging_shop.put("broken.jpg", make_image(5))
    ingest(tagging_shop.connections, IngestOptions())
    assert decide(tagging_shop, "retry", [failed, 10**9]) == 0
    assert tagging_shop.query("SELECT ignored_by, resolved_at IS NULL FROM catalog.item_failures") == [(None, False)]
