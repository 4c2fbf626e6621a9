"""Find the review queue once for all requests of a server, because finding it takes longer than showing it."""

import time
from collections.abc import Collection
from dataclasses import replace
from threading import Lock

from sqlalchemy import Connection

from jobs.database.model_versions import read_live_versions
from jobs.review.queue import ReviewQueue, find_review_queue
from jobs.settings import RunSettings

FRESH_SECONDS = 30.0


class SharedQueue:
    """The review queue, found again after `FRESH_SECONDS`. Answers of this process leave it at once."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._queue: ReviewQueue | None = None
        self._found_at = 0.0
        self._answered: set[int] = set()

    def get(self, connection: Connection, drift: RunSettings) -> ReviewQueue:
        """Return the queue, found up to `FRESH_SECONDS` ago, with the images that this process has answered since."""
        version = read_live_versions(connection).classifier
        with self._lock:
            is_old = time.monotonic() - self._found_at > FRESH_SECONDS
            if self._queue is None or self._queue.classifier_version_id != version or is_old:
                self._answered.clear()
                self._queue = find_review_queue(connection, drift)
                self._found_at = time.monotonic()
            return replace(self._queue, answered=frozenset(self._answered))

    def add_answers(self, image_ids: Collection[int]) -> None:
        """Leave out images that were answered."""
        with self._lock:
            self._answered.update(image_ids)

    def remove_answers(self, image_ids: Collection[int]) -> None:
        """Return images whose answers were undone to their places."""
        with self._lock:
            self._answered.difference_update(image_ids)

    def forget(self) -> None:
        """Find the queue again at the next request."""
        with self._lock:
            self._queue = None
