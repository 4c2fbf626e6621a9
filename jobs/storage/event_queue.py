"""Receive the events of a bucket from an SQS queue."""

import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_plus, urlsplit

import botocore.exceptions
from botocore.config import Config

from jobs.errors import ConfigurationError, RetryableError
from jobs.storage.credentials import AwsCredentials
from jobs.storage.s3_errors import CREDENTIAL_ERRORS, TRANSPORT_ERRORS, get_code, get_status

CONNECTION_TIMEOUT_SECONDS = 5
POLL_SECONDS = 10
READ_TIMEOUT_SECONDS = POLL_SECONDS + 20
MESSAGES_PER_REQUEST = 10
"""The maximum of SQS."""
HIDDEN_SECONDS = 300
"""How long a received message is hidden from other receivers. If it is not deleted by then, it is delivered again."""
MAX_BATCH_MESSAGES = 1000
MAX_BATCH_SECONDS = 10
_REGION = re.compile(r"^sqs\.([a-z0-9-]+)\.")
TEST_EVENT = "s3:TestEvent"


@dataclass(frozen=True)
class Message:
    """A message. ``receipt`` deletes it."""

    receipt: str
    body: str


class EventQueue:
    """A client of one queue."""

    def __init__(self, url: str, credentials: AwsCredentials) -> None:
        """Set up the client.

        Raises:
            ConfigurationError: the address or the profile is invalid.
        """
        self._url = url
        place = urlsplit(url)
        region = _REGION.search(place.netloc)
        config = Config(
            connect_timeout=CONNECTION_TIMEOUT_SECONDS,
            read_timeout=READ_TIMEOUT_SECONDS,
            retries={"mode": "standard", "total_max_attempts": 4},
        )
        try:
            session = credentials.open_session()
            self._client: Any = session.client(
                "sqs",
                endpoint_url=f"{place.scheme}://{place.netloc}",
                region_name=region[1] if region else session.region_name,
                config=config,
            )
        except (botocore.exceptions.BotoCoreError, ValueError) as error:
            raise ConfigurationError(
                f"cannot set up the SQS client ({error}). Check CATALOG_EVENT_QUEUE_URL and AWS_DEFAULT_REGION"
            ) from None

    def receive(self) -> list[Message]:
        """Wait up to ten seconds for messages, and return those that arrive within the next ten.

        Raises:
            RetryableError: the queue is unavailable or throttles.
            ConfigurationError: the queue does not exist, or the credentials may not use it.
        """
        messages = self._receive(POLL_SECONDS)
        deadline = time.monotonic() + MAX_BATCH_SECONDS
        latest = messages
        while latest and len(messages) < MAX_BATCH_MESSAGES and time.monotonic() < deadline:
            latest = self._receive(wait_seconds=1)
            messages += latest
        return messages

    def _receive(self, wait_seconds: int) -> list[Message]:
        with self._translate_errors():
            response = self._client.receive_message(
                QueueUrl=self._url,
                MaxNumberOfMessages=MESSAGES_PER_REQUEST,
                WaitTimeSeconds=wait_seconds,
                VisibilityTimeout=HIDDEN_SECONDS,
            )
        return [Message(item["ReceiptHandle"], item["Body"]) for item in response.get("Messages", [])]

    def delete(self, messages: Sequence[Message]) -> None:
        """Delete messages. One that cannot be deleted is delivered again. Errors are those of `receive`."""
        for start in range(0, len(messages), MESSAGES_PER_REQUEST):
            batch = messages[start : start + MESSAGES_PER_REQUEST]
            entries = [{"Id": str(number), "ReceiptHandle": one.receipt} for number, one in enumerate(batch)]
            with self._translate_errors():
                self._client.delete_message_batch(QueueUrl=self._url, Entries=entries)

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        try:
            yield
        except CREDENTIAL_ERRORS as error:
            raise ConfigurationError(f"no credentials for {self._url}: {error}") from None
        except TRANSPORT_ERRORS as error:
            raise RetryableError(f"cannot reach the queue {self._url}: {error}") from error
        except botocore.exceptions.ClientError as error:
            message = f"the queue {self._url} returned {get_code(error)}"
            if 400 <= get_status(error) < 500 and "Throttl" not in get_code(error):
                raise ConfigurationError(f"{message}. Check CATALOG_EVENT_QUEUE_URL and the credentials") from error
            raise RetryableError(message) from error


def read_keys(body: str, bucket: str) -> list[str]:
    """Return the keys in a message: an S3 event notification, or an event that S3 sends through EventBridge.

    S3 sends one test event without keys when notifications are switched on.

    Raises:
        ValueError: it is something else, or an event of another bucket.
    """
    content = json.loads(body)
    if not isinstance(content, Mapping):
        raise ValueError("it is not an event")
    if content.get("Event") == TEST_EVENT:
        return []
    try:
        if content.get("source") == "aws.s3":
            # EventBridge does not encode keys.
            found = [(content["detail"]["bucket"]["name"], content["detail"]["object"]["key"])]
        else:
            records = [record["s3"] for record in content["Records"]]
            found = [(s3["bucket"]["name"], unquote_plus(s3["object"]["key"], errors="strict")) for s3 in records]
    except (KeyError, TypeError, AttributeError):
        raise ValueError("it is not an event of S3") from None
    others = {name for name, _ in found if name != bucket}
    if others:
        raise ValueError(f"it is an event of the bucket {', '.join(map(str, sorted(others)))}, not of {bucket}")
    return [key for _, key in found]
