"""Find the review queue once for all requests of a server, because finding it takes longer than showing it."""

import logging
import time
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from dataclasses import replace
from threading import Lock, Thread, current_thread

from sqlalchemy import Connection

from jobs.database.model_versions import read_live_versions
from jobs.review.queue import ReviewQueue, find_review_queue
from jobs.settings import RunSettings

log = logging.getLogger(__name__)

FRESH_SECONDS = 30.0
"""A request for an older queue starts a search in the background."""
MAX_SECONDS = 300.0
"""A request for an older queue waits for a new one. The first visitor in the morning must not see old counts."""
THREAD_NAME = "review-queue"


class SharedQueue:
    """The review queue, found again after `FRESH_SECONDS`. Answers of this process leave it at once.

    ``open_connection`` opens the connection of a search in the background.
    """

    def __init__(self, open_connection: Callable[[], AbstractContextManager[Connection]]) -> None:
        self._open_connection = open_connection
        self._lock = Lock()
        self._queue: ReviewQueue | None = None
        self._found_at = 0.0
        self._answered: set[int] = set()
        self._search: Thread | None = None
        """The search in the background. The result of any other search is dropped."""

    def get(self, connection: Connection, drift: RunSettings) -> ReviewQueue:
        """Return the queue, up to `MAX_SECONDS` old, without the images that this process has answered since.

        The first request, and one for a queue that is too old or was forgotten, finds it. Others wait for it.
        """
        version = read_live_versions(connection).classifier
        with self._lock:
            now, answered = time.monotonic(), set(self._answered)
            age = now - self._found_at
            if self._queue is None or self._queue.classifier_version_id != version or age > MAX_SECONDS:
                self._store(find_review_queue(connection, drift), now, answered)
            elif age > FRESH_SECONDS and self._search is None:
                arguments = (drift, now, answered)
                self._search = Thread(target=self._refresh, args=arguments, name=THREAD_NAME, daemon=True)
                self._search.start()
            assert self._queue is not None
            return replace(self._queue, answered=frozenset(self._answered))

    def _refresh(self, drift: RunSettings, started_at: float, answered: set[int]) -> None:
        queue = None
        try:
            with self._open_connection() as connection:
                queue = find_review_queue(connection, drift)
        except Exception:
            log.exception("cannot find the review queue; the next request tries again")
        with self._lock:
            if self._search is current_thread():
                self._search = None
                if queue is not None:
                    self._store(queue, started_at, answered)

    def _store(self, queue: ReviewQueue, started_at: float, answered: set[int]) -> None:
        """Replace the queue by one that lacks the images that were answered before the search for it."""
        self._queue, self._found_at, self._search = queue, started_at, None
        self._answered -= answered

    def add_answers(self, image_ids: Collection[int]) -> None:
        """Leave out images that were answered."""
        with self._lock:
            self._answered.update(image_ids)

    def remove_answers(self, image_ids: Collection[int]) -> None:
        """Return images whose answers were undone to their places."""
        with self._lock:
            if not self._answered.issuperset(image_ids):
                # The queue was found after one of the answers, so it lacks the image.
                self._queue = None
            self._answered.difference_update(image_ids)
            # A search that has begun may have read the answers.
            self._search = None

    def forget(self) -> None:
        """Find the queue again at the next request."""
        with self._lock:
            self._queue = self._search = None
