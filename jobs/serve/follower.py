"""Follow promotions and rollbacks: load each model that becomes live, and drop the one it replaces."""

import gc
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Generic, TypeVar

from jobs.connections import Connections, translate_catalog_errors
from jobs.database.model_versions import LiveEncoder, LiveVersions, read_live_versions
from jobs.errors import JobError
from jobs.serve.metrics import ServiceMetrics
from jobs.serve.served_models import ServedClassifier, ServedEncoder, load_served_classifier, load_served_encoder

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0
RETRY_SECONDS = 15.0
"""Delay before loading a failed version again. The bucket may have been unavailable."""

Version = TypeVar("Version")
Served = TypeVar("Served", bound=ServedClassifier | ServedEncoder)


class FollowedModel(Generic[Version, Served]):
    """The serving version of one kind of model, and the reason why a newer version does not serve yet.

    ``is_live`` is true if the database has a live version of this kind, loaded or not. The thread that follows the
    live models replaces ``served`` in one assignment. Requests that have already read it keep using the old object.
    """

    def __init__(self, kind: str, load: Callable[[Version], Served], when_none: str) -> None:
        self.served: Served | None = None
        self.is_live = False
        self.problem: str | None = when_none
        self._kind = kind
        self._load = load
        self._loaded: Version | None = None
        self._failed: Version | None = None
        self._retry_at = 0.0

    def follow(self, version: Version | None) -> None:
        """Load a version and serve it. Until it is loaded, or if loading fails, keep serving the previous one."""
        self.is_live = version is not None
        if version is None:
            return
        if version == self._loaded:
            self.problem = None
            return
        if version == self._failed and time.monotonic() < self._retry_at:
            return
        if version != self._failed:
            self.problem = f"{self._kind} {version} is being loaded"
        try:
            # A failed pass leaves a reference cycle that keeps a replaced model. Free it before memory is needed.
            gc.collect()
            self.served = self._load(version)
        except JobError as error:
            if self.problem != str(error):
                log.error("cannot load %s %s: %s", self._kind, version, error)
            self.problem, self._failed = str(error), version
            self._retry_at = time.monotonic() + RETRY_SECONDS
            return
        self._loaded, self._failed, self.problem = version, None, None

    def close(self) -> None:
        """Stop the threads of the loaded model."""
        if self.served:
            self.served.close()


class LiveModelFollower:
    """Follow both kinds of model in one thread, while the event loop serves requests."""

    def __init__(self, connections: Connections, metrics: ServiceMetrics) -> None:
        def load_classifier(version: int) -> ServedClassifier:
            with translate_catalog_errors(connections.settings.locations.database_url):
                return load_served_classifier(connections, version, metrics)

        def load_encoder(live: LiveEncoder) -> ServedEncoder:
            with translate_catalog_errors(connections.settings.locations.database_url):
                return load_served_encoder(connections, live, metrics)

        self.classifier = FollowedModel[int, ServedClassifier](
            "classifier",
            load_classifier,
            "no classifier is live yet: run `catalog retrain` first",
        )
        self.encoder = FollowedModel[LiveEncoder, ServedEncoder](
            "encoder",
            load_encoder,
            "no embedding space is live yet: run `catalog ingest` first",
        )
        self.database_problem: str | None = None
        self._connections = connections

    @contextmanager
    def following(self, when_it_ends: Callable[[], object]) -> Iterator[None]:
        """Follow the live models during the block. Call ``when_it_ends`` when the thread ends, also after an error.

        Leaving the block waits until a model that is being loaded is ready, then raises the error, if any.
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

    def poll(self) -> None:
        """Read the live versions once, and load new ones."""
        versions = self._read_versions()
        if versions is not None:
            self.classifier.follow(versions.classifier)
            self.encoder.follow(versions.encoder)

    def _follow_until(self, stop: threading.Event) -> None:
        while True:
            self.poll()
            if stop.wait(POLL_SECONDS):
                return

    def _read_versions(self) -> LiveVersions | None:
        """Read the live versions. Return None if the database is unavailable or has no schema. Log each change once."""
        try:
            with (
                translate_catalog_errors(self._connections.settings.locations.database_url),
                self._connections.engine.connect() as connection,
            ):
                versions = read_live_versions(connection)
        except JobError as error:
            if self.database_problem is None:
                log.warning("cannot follow the live models for now: %s", error)
            self.database_problem = str(error)
            return None
        if self.database_problem is not None:
            log.info("following the live models again")
            self.database_problem = None
        return versions
