"""Receive events from a queue, and read the keys in them."""

import json
from collections.abc import Iterator
from unittest.mock import patch

import pytest

from fixtures.event_queues import CREDENTIALS, TestQueue, create_queue, make_event, run_sqs_server
from jobs.errors import ConfigurationError, RetryableError
from jobs.storage.event_queue import EventQueue, read_keys

EVENT_BRIDGE = {
    "source": "aws.s3",
    "detail-type": "Object Created",
    "detail": {"bucket": {"name": "shop"}, "object": {"key": "a+b %41.jpg"}},
}


@pytest.fixture(scope="module")
def sqs_server() -> Iterator[str]:
    with run_sqs_server() as url:
        yield url


@pytest.fixture
def queue(sqs_server: str) -> Iterator[TestQueue]:
    with patch("jobs.storage.event_queue.POLL_SECONDS", 1):
        yield create_queue(sqs_server)


def test_messages_stay_until_they_are_deleted(queue: TestQueue) -> None:
    client = EventQueue(queue.url, CREDENTIALS)
    assert client.receive() == []
    queue.send(*map(str, range(25)))
    messages = client.receive()
    assert {message.body for message in messages} == set(map(str, range(25)))
    assert queue.count() == (0, 25)
    client.delete(messages[:24])
    assert queue.count() == (0, 1)


def test_a_missing_queue_is_a_wrong_setting(queue: TestQueue) -> None:
    with pytest.raises(ConfigurationError, match=r"-gone returned .*Check CATALOG_EVENT_QUEUE_URL"):
        EventQueue(f"{queue.url}-gone", CREDENTIALS).receive()


def test_an_unreachable_server_is_retried() -> None:
    with pytest.raises(RetryableError, match=r"cannot reach the queue http://127.0.0.1:9/1/events"):
        EventQueue("http://127.0.0.1:9/1/events", CREDENTIALS).receive()


@pytest.mark.parametrize(
    ("body", "keys"),
    [
        (make_event("shop", "a b.jpg", "new/a+b.jpg", "ünï-写真.jpg"), ["a b.jpg", "new/a+b.jpg", "ünï-写真.jpg"]),
        (make_event("shop", "a.jpg", name="ObjectRemoved:Delete"), ["a.jpg"]),
        (json.dumps(EVENT_BRIDGE), ["a+b %41.jpg"]),
        (json.dumps({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "shop"}), []),
    ],
)
def test_keys_are_read_from_events(body: str, keys: list[str]) -> None:
    assert read_keys(body, "shop") == keys


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("hello", "Expecting value"),
        ("[]", "not an event"),
        ("{}", "not an event of S3"),
        ('{"Records": [{}]}', "not an event of S3"),
        ('{"Records": [{"s3": {"bucket": {"name": "shop"}, "object": {"key": 1}}}]}', "not an event of S3"),
        (make_event("other", "a.jpg"), "an event of the bucket other, not of shop"),
    ],
)
def test_other_messages_are_refused(body: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_keys(body, "shop")
