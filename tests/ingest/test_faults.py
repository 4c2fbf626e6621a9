"""Ingest objects that change, vanish or are refused after the listing."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from fixtures.fault_proxy import FaultProxy, run_fault_proxy
from fixtures.shop import Shop, make_image
from jobs.connections import Connections
from jobs.errors import PermanentError, RetryableError
from jobs.ingest.ingest import ingest
from jobs.ingest.plan import IngestOptions, preview_run
from jobs.storage.object_store import ObjectStore

pytestmark = pytest.mark.usefixtures("aws_keys")

FAILURES = """
    SELECT object_key, stage, reason, attempts FROM catalog.item_failures JOIN catalog.images USING (image_id)
    WHERE resolved_at IS NULL ORDER BY 1
"""
HOSTILE_KEYS = (
    "with space.jpg",
    "quotes'\"`.jpg",
    "'; DROP TABLE catalog.images; --.jpg",
    "été/帽子 📷.jpg",
    "percent%20%2F+plus&and#hash?.jpg",
    "back\\slash.jpg",
    "tab\tand\x7f.jpg",
    "line\nbreak.jpg",
    "/".join(["x" * 200] * 5) + "/" + "y" * 15 + ".jpg",
)


@pytest.fixture
def proxy(tagging_shop: Shop) -> Iterator[FaultProxy]:
    endpoint = tagging_shop.connections.settings.locations.s3_endpoint_url
    assert endpoint is not None
    with run_fault_proxy(endpoint) as proxy:
        yield proxy


def through(proxy: FaultProxy, shop: Shop) -> Connections:
    """Return connections to the shop that read the bucket through the proxy."""
    return replace(shop.connections, store=ObjectStore(proxy.url))


def test_a_slow_bucket_is_the_bottleneck(tagging_shop: Shop, proxy: FaultProxy) -> None:
    tagging_shop.put_images(24)
    proxy.delay_seconds = 0.2
    connections = replace(tagging_shop.with_settings(read_threads=2), store=ObjectStore(proxy.url))
    report = ingest(connections, IngestOptions())
    assert report.bottleneck == "bucket"
    assert report.advice is not None
    assert "CATALOG_DECODE_PROCESSES" in report.advice
    # Two threads read 24 images, each in a fifth of a second: 2.4 seconds in total.
    assert report.waiting["bucket"].seconds > 1.6
    assert 0.5 < report.waiting["bucket"].share <= 1


def test_failures_of_single_objects_become_rows(tagging_shop: Shop, proxy: FaultProxy) -> None:
    keys = tagging_shop.put_images(12)
    proxy.errors = {
        keys[0]: (403, "AccessDenied"),
        keys[1]: (404, "NoSuchKey"),
        keys[2]: (412, "PreconditionFailed"),
    }
    report = ingest(through(proxy, tagging_shop), IngestOptions())
    assert (report.tagged, report.failed) == (9, 3)
    assert tagging_shop.query(FAILURES) == [
        (keys[0], "read", "access_denied", 1),
        (keys[1], "read", "object_missing", 1),
        (keys[2], "read", "object_replaced", 1),
    ]


def test_retryable_failures_are_retried_and_resolved(tagging_shop: Shop, proxy: FaultProxy) -> None:
    key = tagging_shop.put_images(2)[0]
    tagging_shop.put("broken.jpg", b"<html>")
    proxy.errors = {key: (403, "AccessDenied")}
    connections = through(proxy, tagging_shop)
    ingest(connections, IngestOptions())
    assert preview_run(connections, IngestOptions()).entries_by_reason == {"retry": 1}
    ingest(connections, IngestOptions())
    assert (key, "read", "access_denied", 2) in tagging_shop.query(FAILURES)
    proxy.errors = {}
    proxy.requested.clear()
    report = ingest(connections, IngestOptions())
    assert (report.entries, report.tagged) == (1, 1)
    assert key in proxy.requested
    assert "broken.jpg" not in proxy.requested
    assert tagging_shop.query(FAILURES) == [("broken.jpg", "decode", "unsupported_format", 1)]


def test_attempts_become_less_frequent(tagging_shop: Shop, proxy: FaultProxy) -> None:
    key = tagging_shop.put_images(1)[0]
    proxy.errors = {key: (403, "AccessDenied")}
    limited = replace(through(proxy, tagging_shop), settings=tagging_shop.with_settings(max_attempts=2).settings)
    assert [ingest(limited, IngestOptions()).entries for _ in range(3)] == [1, 1, 0]
    assert preview_run(limited, IngestOptions(retry_failed=True)).entries == 1
    with limited.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE catalog.item_failures SET last_failed_at = now() - interval '8 days'")
    proxy.errors = {}
    assert [ingest(limited, IngestOptions()).tagged for _ in range(2)] == [1, 0]


def test_a_replaced_object_is_detected_without_if_match(tagging_shop: Shop) -> None:
    keys = tagging_shop.put_images(1)
    location = replace(tagging_shop.connections.source, key=keys[0])
    assert tagging_shop.connections.store.read_unchanged(location, "another-etag", 10**6) == "object_replaced"


def test_throttling_ends_the_job_without_loss(tagging_shop: Shop, proxy: FaultProxy) -> None:
    keys = tagging_shop.put_images(20)
    proxy.errors = {keys[13]: (503, "SlowDown")}
    with pytest.raises(RetryableError, match="SlowDown"):
        ingest(through(proxy, tagging_shop), IngestOptions())
    assert tagging_shop.query(FAILURES) == []
    proxy.errors = {}
    ingest(through(proxy, tagging_shop), IngestOptions())
    assert tagging_shop.query("SELECT count(*) FROM catalog.current_image_tags") == [(20,)]


def test_wrong_credentials_fail_no_image(tagging_shop: Shop, proxy: FaultProxy) -> None:
    keys = tagging_shop.put_images(3)
    proxy.errors = {keys[1]: (403, "InvalidAccessKeyId")}
    with pytest.raises(PermanentError, match="credentials"):
        ingest(through(proxy, tagging_shop), IngestOptions())
    assert tagging_shop.query(FAILURES) == []


def test_hostile_keys_are_tagged(tagging_shop: Shop) -> None:
    stored = []
    for number, key in enumerate(HOSTILE_KEYS):
        tagging_shop.put(key, make_image(number))
        stored.append(key)
    report = ingest(tagging_shop.connections, IngestOptions())
    assert (report.tagged, report.failed) == (len(stored), 0)
    known = {key for (key,) in tagging_shop.query("SELECT object_key FROM catalog.current_image_tags")}
    assert known == set(stored)
    assert len(HOSTILE_KEYS[-1].encode()) == 1024
    product = tagging_shop.query("SELECT product_id FROM catalog.images WHERE object_key LIKE '%DROP TABLE%'")[0][0]
    assert len(tagging_shop.query("SELECT * FROM catalog.similar_products(:product, 3)", product=product)) == 3


def test_keys_with_parent_segments_are_tagged(tagging_shop: Shop, proxy: FaultProxy) -> None:
    """Tag a key that the proxy adds to the listing and serves, because no file can have such a name."""
    image = make_image(1)
    tagging_shop.put("climb.jpg", image)
    proxy.renamed = {"climb.jpg": "../../../tmp/climb.jpg"}
    proxy.objects = {"../../../tmp/climb.jpg": image}
    report = ingest(through(proxy, tagging_shop), IngestOptions())
    assert (report.tagged, report.failed) == (1, 0)
    assert tagging_shop.query("SELECT object_key FROM catalog.current_image_tags") == [("../../../tmp/climb.jpg",)]


def test_a_refused_object_does_not_affect_others(tagging_shop: Shop, proxy: FaultProxy) -> None:
    keys = tagging_shop.put_images(4)
    proxy.errors = {keys[2]: (400, "InvalidArgument")}
    report = ingest(through(proxy, tagging_shop), IngestOptions())
    assert (report.tagged, report.failure_reasons) == (3, {"object_refused": 1})
