"""Follow the events of the bucket: record and tag images soon after they are uploaded, and record deletions."""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime

from jobs.connections import Connections
from jobs.database.tagging_runs import is_ingest_running, try_lock_watch
from jobs.errors import ConfigurationError, RefusedError, RetryableError, first_line
from jobs.ingest.discover import discover_objects
from jobs.ingest.plan import IngestOptions, plan_keys
from jobs.ingest.publish import publish_run
from jobs.ingest.report import report_run
from jobs.ingest.tag_shard import ShardTagger
from jobs.stopping import finish_steps, is_stop_requested
from jobs.storage.event_queue import EventQueue, Message, read_keys

log = logging.getLogger(__name__)

MAX_WAITING_KEYS = 100_000
"""Recorded images that wait for another run to end. That run or the next one tags the rest."""


def watch(connections: Connections) -> None:
    """Record and tag images as events arrive, until SIGTERM.

    Raises:
        ConfigurationError: no queue is set, or it cannot be used.
        RetryableError: the queue, bucket or database is unavailable, or another process watches.
        TerminatedError: SIGTERM arrived.
    """
    url = connections.settings.locations.event_queue_url
    if url is None:
        raise ConfigurationError(
            "CATALOG_EVENT_QUEUE_URL is not set. Example: https://sqs.eu-central-1.amazonaws.com/123456789012/images"
        )
    watcher = Watcher(connections, EventQueue(url, connections.settings.credentials))
    with _lock(connections), finish_steps():
        log.info("waiting for events in %s", url)
        while not is_stop_requested():
            watcher.follow()


@contextmanager
def _lock(connections: Connections) -> Iterator[None]:
    with connections.engine.connect() as connection:
        # Detach from the pool, so closing the connection always releases the lock.
        connection.detach()
        is_locked = try_lock_watch(connection)
        connection.commit()
        if not is_locked:
            raise RetryableError("another process is running `catalog watch` on this catalog")
        yield


class Watcher:
    """Turn events into small runs.

    An event is only a hint to look at an object, so repeated, late and reordered events do no harm.
    """

    def __init__(self, connections: Connections, queue: EventQueue) -> None:
        self._connections = connections
        self._queue = queue
        self._tagger = ShardTagger(connections)
        self._waiting: dict[str, None] = {}
        self._discovered: Counter[str] = Counter()

    def follow(self) -> None:
        """Record the next batch of events. Tag what is waiting, unless another run is ingesting."""
        self._record(self._queue.receive())
        if self._waiting and not self._is_ingest_running():
            self._tag()

    def _record(self, messages: Sequence[Message]) -> None:
        """Record the objects that messages name. Delete the messages after the commit."""
        bucket = self._connections.source.bucket
        keys: dict[str, None] = {}
        readable = []
        for message in messages:
            try:
                keys.update(dict.fromkeys(read_keys(message.body, bucket)))
            except ValueError as error:
                log.warning("a message stays in the queue: %s: %.200r", first_line(error), message.body)
            else:
                readable.append(message)
        if keys:
            with self._connections.engine.begin() as connection:
                discovery = discover_objects(connection, self._connections, list(keys))
            found = Counter(asdict(discovery))
            if discovery.new or discovery.changed or discovery.restored or discovery.vanished:
                self._discovered.update(found)
                self._waiting.update(dict.fromkeys(list(keys)[: MAX_WAITING_KEYS - len(self._waiting)]))
                log.info("%d events: %s", len(readable), dict(+found))
        self._queue.delete(readable)

    def _is_ingest_running(self) -> bool:
        with self._connections.engine.connect() as connection:
            return is_ingest_running(connection)

    def _tag(self) -> None:
        """Run the stages of an ingest run on the recorded images."""
        run_id = f"ingest-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}-events"
        options = IngestOptions(keys=tuple(self._waiting))
        plan = plan_keys(self._connections, run_id, options, dict(self._discovered))
        self._waiting.clear()
        self._discovered.clear()
        self._tagger.tag(run_id, plan.shards)
        publish_run(self._connections.engine, run_id)
        try:
            report_run(self._connections, run_id)
        except RefusedError as error:
            # A single bad image is a large share of a small run.
            log.warning("%s", error)
