"""Follow the events of a bucket in a real queue."""

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from threading import Timer
from unittest.mock import patch

import pytest

from fixtures.event_queues import CREDENTIALS, TestQueue, create_queue, make_event, run_sqs_server
from fixtures.shop import Shop, make_image
from jobs.database.job_progress import JobProgress, delete_job_progress, upsert_job_progress
from jobs.errors import ConfigurationError, RetryableError, TerminatedError
from jobs.ingest.discover import discover_objects
from jobs.ingest.ingest import ingest
from jobs.ingest.plan import IngestOptions
from jobs.ingest.watch import Watcher, watch
from jobs.storage.event_queue import EventQueue
from jobs.storage.locations import S3Uri

TAGGED = "SELECT object_key FROM catalog.current_image_tags JOIN catalog.images USING (image_id, object_key) ORDER BY 1"
DELETED = "SELECT object_key FROM catalog.images WHERE deleted_at IS NOT NULL"
RUNS = "SELECT entries, state FROM catalog.tagging_runs ORDER BY started_at"


@pytest.fixture(scope="module")
def sqs_server() -> Iterator[str]:
    with run_sqs_server() as url:
        yield url


@pytest.fixture
def queue(sqs_server: str) -> Iterator[TestQueue]:
    with patch("jobs.storage.event_queue.POLL_SECONDS", 1):
        yield create_queue(sqs_server)


def make_watcher(shop: Shop, queue: TestQueue) -> Watcher:
    return Watcher(shop.connections, EventQueue(queue.url, CREDENTIALS))


def test_events_become_small_runs(tagging_shop: Shop, queue: TestQueue) -> None:
    shop, watcher = tagging_shop, make_watcher(tagging_shop, queue)
    bucket = shop.connections.source.bucket
    for number, key in enumerate(("a b_1.jpg", "c_1.jpg", "without an event_1.jpg", "notes.txt")):
        shop.put(key, make_image(number))
    with shop.connections.engine.begin() as connection:
        discover_objects(connection, shop.connections, ["without an event_1.jpg"])  # Due, but not in an event.
    queue.send(make_event(bucket, "a b_1.jpg", "notes.txt"), make_event(bucket, "c_1.jpg", "gone.jpg"))
    watcher.follow()
    assert shop.query(TAGGED) == [("a b_1.jpg",), ("c_1.jpg",)]
    assert queue.count() == (0, 0)
    assert shop.query(RUNS) == [(2, "succeeded")]

    # A repeated event changes nothing, and one of an upload can arrive after that of the deletion.
    shop.remove("c_1.jpg")
    queue.send(make_event(bucket, "c_1.jpg", name="ObjectRemoved:Delete"), make_event(bucket, "c_1.jpg"))
    watcher.follow()
    assert shop.query(TAGGED) == [("a b_1.jpg",)]
    assert shop.query(DELETED) == [("c_1.jpg",)]
    queue.send(make_event(bucket, "a b_1.jpg", "c_1.jpg"))
    watcher.follow()
    assert shop.query(RUNS) == [(2, "succeeded"), (0, "succeeded")]

    # While another run is ingesting, images are recorded, and tagged afterwards.
    progress = JobProgress("listing the bucket")
    with shop.connections.engine.begin() as connection:
        upsert_job_progress(connection, "night", "discover", progress, 1)
    shop.put("a b_1.jpg", make_image(99))
    queue.send(make_event(bucket, "a b_1.jpg"))
    watcher.follow()
    assert shop.query("SELECT content_hash FROM catalog.images WHERE object_key = 'a b_1.jpg'") == [(None,)]
    assert queue.count() == (0, 0)
    assert len(shop.query(RUNS)) == 2
    with shop.connections.engine.begin() as connection:
        delete_job_progress(connection, "night", "discover")
    watcher.follow()
    assert shop.query(RUNS)[2:] == [(1, "succeeded")]
    assert shop.query(TAGGED) == [("a b_1.jpg",)]

    # The next run finds what no event named.
    shop.remove("a b_1.jpg")
    ingest(shop.with_settings(vanished_share_limit=1), IngestOptions())
    assert shop.query(TAGGED) == [("without an event_1.jpg",)]


def test_a_bad_image_does_not_end_the_watch(tagging_shop: Shop, queue: TestQueue) -> None:
    shop = replace(tagging_shop, connections=tagging_shop.with_settings(failed_share_limit=0))
    shop.put("a.jpg", b"not an image")
    queue.send(make_event(shop.connections.source.bucket, "a.jpg"))
    make_watcher(shop, queue).follow()
    assert shop.query(RUNS) == [(1, "failed")]
    assert queue.count() == (0, 0)


def test_messages_that_are_not_events_stay_in_the_queue(
    shop: Shop, queue: TestQueue, caplog: pytest.LogCaptureFixture
) -> None:
    queue.send("hello", make_event("other-bucket", "a.jpg"), '{"Event": "s3:TestEvent"}')
    make_watcher(shop, queue).follow()
    assert queue.count() == (0, 2)
    warnings = [record.getMessage() for record in caplog.records if record.name == "jobs.ingest.watch"]
    assert [warning.partition(":")[0] for warning in warnings] == ["a message stays in the queue"] * 2


def test_messages_stay_until_the_commit(shop: Shop, queue: TestQueue) -> None:
    missing = S3Uri("missing-bucket", "")
    queue.send(make_event(missing.bucket, "a.jpg"))
    other = replace(shop, connections=replace(shop.connections, source=missing))
    with pytest.raises(ConfigurationError, match="NoSuchBucket"):
        make_watcher(other, queue).follow()
    assert queue.count() == (0, 1)


def test_one_process_watches_until_sigterm(shop: Shop, queue: TestQueue) -> None:
    connections = shop.with_settings(event_queue_url=queue.url)
    connections = replace(connections, settings=connections.settings.model_copy(update={"credentials": CREDENTIALS}))
    refusals: list[RetryableError] = []

    def watch_too() -> None:
        try:
            watch(connections)
        except RetryableError as error:
            refusals.append(error)
        os.kill(os.getpid(), signal.SIGTERM)

    Timer(0.5, watch_too).start()
    with pytest.raises(TerminatedError):
        watch(connections)
    assert "another process is running `catalog watch`" in str(refusals[0])


def test_a_queue_is_required(shop: Shop) -> None:
    with pytest.raises(ConfigurationError, match="CATALOG_EVENT_QUEUE_URL is not set"):
        watch(shop.connections)
