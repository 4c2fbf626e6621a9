"""Follow promotions and rollbacks: load each model that becomes live, and drop the one it replaces."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Generic, TypeVar

from jobs.connections import Connections, translate_faults
from jobs.database.model_versions import LiveEncoder, LiveVersions, read_live_versions
from jobs.errors import JobError
from jobs.serve.served_models import ServedClassifier, ServedEncoder, load_served_classifier, load_served_encoder

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0
RETRY_SECONDS = 15.0
"""After which a version that did not load is tried again: a bucket may be back by then."""

Version = TypeVar("Version")
Served = TypeVar("Served")


class FollowedModel(Generic[Version, Served]):
    """One kind of model: the version that answers now, and why a newer one does not yet.

    ``is_live`` says whether a version of this kind is live, loaded or not, by the last look at the database.
    ``served`` is replaced in one step, by the thread that follows; whoever has read it may go on using it.
    """

    def __init__(self, kind: str, load: Callable[[Version], Served], when_none: str) -> None:
        self.served: Served | None = None
        self.is_live = False
        self.trouble: str | None = when_none
        self._kind = kind
        self._load = load
        self._loaded: Version | None = None
        self._refused: Version | None = None
        self._retry_at = 0.0

    def follow(self, version: Version | None) -> None:
        """Have this version answer from now on; until it is loaded, and if that fails, the one before does."""
        self.is_live = version is not None
        if version is None:
            return
        if version == self._loaded:
            self.trouble = None
            return
        if version == self._refused and time.monotonic() < self._retry_at:
            return
        if version != self._refused:
            self.trouble = f"{self._kind} {version} is being loaded"
        try:
            self.served = self._load(version)
        except JobError as error:
            if self.trouble != str(error):
                log.error("%s %s does not load: %s", self._kind, version, error)
            self.trouble, self._refused = str(error), version
            self._retry_at = time.monotonic() + RETRY_SECONDS
            return
        self._loaded, self._refused, self.trouble = version, None, None


class LiveModelFollower:
    """Both kinds, followed in a thread of their own, so that questions are answered meanwhile."""

    def __init__(self, connections: Connections) -> None:
        def load_classifier(version: int) -> ServedClassifier:
            with translate_faults(connections.settings.locations.database_url):
                return load_served_classifier(connections, version)

        def load_encoder(live: LiveEncoder) -> ServedEncoder:
            with translate_faults(connections.settings.locations.database_url):
                return load_served_encoder(connections, live)

        self.classifier = FollowedModel[int, ServedClassifier](
            "classifier",
            load_classifier,
            "no classifier is live yet: run `python -m jobs retrain` first",
        )
        self.encoder = FollowedModel[LiveEncoder, ServedEncoder](
            "encoder",
            load_encoder,
            "no embedding space is live yet: run `python -m jobs ingest` first",
        )
        self.database_trouble: str | None = None
        self._connections = connections

    @contextmanager
    def following(self, when_it_ends: Callable[[], object]) -> Iterator[None]:
        """Follow during the block; ``when_it_ends`` is called then, and earlier if a fault of ours ends it.

        Raises that fault at the end of the block, which waits for the model that may be loading.
        """
        stop = threading.Event()
        with ThreadPoolExecutor(1, "follow-live-models") as thread:
            work = thread.submit(self._follow_until, stop)
            work.add_done_callback(lambda _: when_it_ends())
            try:
                yield
            finally:
                stop.set()
        work.result()

    def look(self) -> None:
        """Ask the database once, and load what is new."""
        versions = self._read_versions()
        if versions is not None:
            self.classifier.follow(versions.classifier)
            self.encoder.follow(versions.encoder)

    def _follow_until(self, stop: threading.Event) -> None:
        while True:
            self.look()
            if stop.wait(POLL_SECONDS):
                return

    def _read_versions(self) -> LiveVersions | None:
        """None while the database is away, or has no schema yet; said once."""
        try:
            with (
                translate_faults(self._connections.settings.locations.database_url),
                self._connections.engine.connect() as connection,
            ):
                versions = read_live_versions(connection)
        except JobError as error:
            if self.database_trouble is None:
                log.warning("live models are not followed for now: %s", error)
            self.database_trouble = str(error)
            return None
        if self.database_trouble is not None:
            log.info("live models are followed again")
            self.database_trouble = None
        return versions
