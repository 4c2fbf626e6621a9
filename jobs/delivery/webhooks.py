"""Post changes to webhooks: signed, in order, at least once, each webhook in its own thread."""

import asyncio
import hashlib
import hmac
import json
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from threading import Event

import httpx
from sqlalchemy import Connection, Engine

from jobs.database.changes import Change, advance_consumer, record_consumer_failure
from jobs.database.dead_letters import (
    delete_dead_letter,
    find_retry,
    insert_dead_letter,
    postpone_retry,
    read_dead_letter,
)
from jobs.delivery.feed import POLL_SECONDS, advance, describe_change, open_consumer, read_next
from jobs.errors import JobError, PermanentError, first_line
from jobs.setting_types import Webhook
from jobs.stopping import is_stop_requested

log = logging.getLogger(__name__)

REQUEST_SECONDS = 15.0
"""Deadline of a request, from the connection to the last byte of the response's headers."""
MAX_PAUSE_SECONDS = 60.0
"""Pauses between attempts double from one second up to this."""
MAX_FAILING_SECONDS = 3600.0
"""Changes that a webhook does not accept for this long become a dead letter, so that one of them cannot block all."""
TIMESTAMP_HEADER = "Catalog-Timestamp"
SIGNATURE_HEADER = "Catalog-Signature"


@dataclass(frozen=True)
class WebhookReport:
    """What a webhook accepted, in numbers of changes.

    ``error`` says why there are dead letters or, without any, why the last request failed, if it did. ``is_stuck`` says
    that no later attempt can help.
    """

    name: str
    accepted: int
    dead_letters: int
    error: str | None
    is_stuck: bool


def deliver_changes(engine: Engine, webhooks: Sequence[Webhook], *, follow: bool) -> tuple[WebhookReport, ...]:
    """Post the changes that are due; with ``follow``, also those that come, until SIGTERM.

    A webhook never waits for another.

    Raises:
        sqlalchemy.exc.DBAPIError: the database is unavailable.
    """
    if not webhooks:
        return ()
    ended = Event()

    def is_over() -> bool:
        return ended.is_set() or is_stop_requested()

    with ThreadPoolExecutor(len(webhooks)) as threads:
        futures = [threads.submit(_Sender(engine, webhook, is_over).run, follow=follow) for webhook in webhooks]
        wait(futures, return_when=FIRST_EXCEPTION)
        ended.set()
    return tuple(future.result() for future in futures)


class _Sender:
    """Sends changes to one webhook. First come dead letters that somebody wants to send again."""

    def __init__(self, engine: Engine, webhook: Webhook, is_over: Callable[[], bool]) -> None:
        self._engine = engine
        self._webhook = webhook
        self._is_over = is_over
        self._consumer = f"webhook/{webhook.name}"
        self._accepted = 0
        self._dead_letters = 0
        self._error: str | None = None
        self._refusal: str | None = None

    def run(self, *, follow: bool) -> WebhookReport:
        """Send until SIGTERM or, without ``follow``, until the webhook has failed or accepted everything."""
        is_stuck = False
        while True:
            try:
                self._run(follow=follow)
                is_stuck = False
            except JobError as error:
                # The other webhooks go on. Another process that reads as this webhook ends some day, and somebody may
                # reset a cursor.
                log.error("webhook %s: %s", self._webhook.name, error)
                self._error, is_stuck = str(error), isinstance(error, PermanentError)
            if follow:
                self._sleep(MAX_PAUSE_SECONDS)
            if not follow or self._is_over():
                break
        reason = self._refusal or self._error
        return WebhookReport(self._webhook.name, self._accepted, self._dead_letters, reason, is_stuck)

    def _run(self, *, follow: bool) -> None:
        pause = POLL_SECONDS
        with open_consumer(self._engine, self._consumer) as connection:
            while True:
                is_sent = self._retry(connection) or self._send_next(connection)
                if self._is_over() or not (is_sent or follow):
                    break
                if is_sent:
                    pause = POLL_SECONDS
                    continue
                pause = min(2 * pause, MAX_PAUSE_SECONDS) if self._error else POLL_SECONDS
                self._sleep(pause)

    def _send_next(self, connection: Connection) -> bool:
        """Send the next page. Return whether the feed advanced."""
        page = read_next(connection, self._consumer)
        if not page:
            return False
        self._error = post(self._webhook, page)
        if self._error is None:
            self._accepted += len(page)
            advance(connection, self._consumer, page)
            return True
        with connection.begin():
            seconds = record_consumer_failure(connection, self._consumer, self._error)
            if seconds < MAX_FAILING_SECONDS:
                log.warning("webhook %s failed, and is tried again: %s", self._webhook.name, self._error)
                return False
            insert_dead_letter(connection, self._webhook.name, page, self._error)
            advance_consumer(connection, self._consumer, page[-1].cursor)
        self._dead_letters += len(page)
        self._refusal = self._error
        log.error("webhook %s: %d changes became a dead letter: %s", self._webhook.name, len(page), self._error)
        return True

    def _retry(self, connection: Connection) -> bool:
        """Send a dead letter that somebody wants to send again. Return whether it was accepted."""
        with connection.begin():
            letter = find_retry(connection, self._webhook.name)
            page = [] if letter is None else read_dead_letter(connection, letter)
        if letter is None:
            return False
        error = post(self._webhook, page)
        with connection.begin():
            if error is not None:
                log.warning("webhook %s did not accept dead letter %d again: %s", self._webhook.name, letter, error)
                postpone_retry(connection, letter, error)
                self._refusal = self._error = error
                return False
            delete_dead_letter(connection, letter)
        self._accepted += len(page)
        return True

    def _sleep(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self._is_over() and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, POLL_SECONDS))


def post(webhook: Webhook, changes: Sequence[Change]) -> str | None:
    """Post changes to a webhook. Return why they were not accepted, or None if the status was 200 to 299."""
    body = json.dumps({"changes": [describe_change(change) for change in changes]}).encode()
    timestamp = str(int(time.time()))
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "catalog-tagger",
        TIMESTAMP_HEADER: timestamp,
        SIGNATURE_HEADER: f"sha256={sign(webhook.secret, timestamp, body)}",
    }
    try:
        status = asyncio.run(_post(webhook.url, body, headers))
    except TimeoutError:
        return f"no response within {REQUEST_SECONDS:g} s"
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
        return first_line(error) or type(error).__name__
    return None if httpx.codes.is_success(status) else f"status {status}"


def sign(secret: str, timestamp: str, body: bytes) -> str:
    """Return the HMAC-SHA256, in hexadecimal, of the timestamp, a period and the body."""
    return hmac.new(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


async def _post(url: str, body: bytes, headers: dict[str, str]) -> int:
    """Return the status of the response, whose body is not read."""
    # The timeouts of httpx restart with each byte. This one does not.
    async with (
        asyncio.timeout(REQUEST_SECONDS),
        httpx.AsyncClient(timeout=None) as client,  # noqa: S113
        client.stream("POST", url, content=body, headers=headers) as response,
    ):
        return response.status_code
