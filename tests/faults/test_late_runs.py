"""Resume runs after the bucket has changed."""

from fixtures.shop import Shop, make_image
from jobs.ingest.ingest import ingest
from jobs.ingest.plan import IngestOptions, plan_run

FAILURES = "SELECT object_key, reason FROM catalog.item_failures JOIN catalog.images USING (image_id)"


def test_a_run_resumed_late_fails_no_image_that_changed(tagging_shop: Shop) -> None:
    keys = sorted(tagging_shop.put_images(6))
    plan_run(tagging_shop.connections, "old", IngestOptions())
    tagging_shop.put(keys[0], make_image(100))
    tagging_shop.remove(keys[1])
    ingest(tagging_shop.connections, IngestOptions())
    report = ingest(tagging_shop.connections, IngestOptions(run_id="old"))
    assert (report.entries, report.failed) == (6, 0)
    assert tagging_shop.query(FAILURES) == []
    assert tagging_shop.query("SELECT object_key FROM catalog.current_image_tags ORDER BY 1") == [
        (key,) for key in keys if key != keys[1]
    ]


def test_an_image_that_changes_after_the_listing_is_retried(tagging_shop: Shop) -> None:
    keys = sorted(tagging_shop.put_images(4))
    plan_run(tagging_shop.connections, "night", IngestOptions())
    tagging_shop.put(keys[0], make_image(100))
    tagging_shop.remove(keys[1])
    report = ingest(tagging_shop.connections, IngestOptions(run_id="night"))
    assert (report.tagged, report.failed) == (2, 2)
    assert sorted(tagging_shop.query(FAILURES)) == [(keys[0], "object_replaced"), (keys[1], "object_missing")]
