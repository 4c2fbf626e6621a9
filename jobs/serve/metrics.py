"""The Prometheus metrics of the query service."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0)
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)


class ServiceMetrics:
    """The metrics of one service, in a registry of their own."""

    media_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "catalog_query_requests", "Requests by response status", ["path", "status"], registry=self._registry
        )
        self.seconds = Histogram(
            "catalog_query_seconds",
            "Seconds from request to response",
            ["path"],
            buckets=SECONDS,
            registry=self._registry,
        )
        self.batch_sizes = Histogram(
            "catalog_query_batch_size",
            "Queries in one pass of a model",
            ["work"],
            buckets=BATCH_SIZES,
            registry=self._registry,
        )
        self._queue_length = Gauge(
            "catalog_query_queue_length", "Accepted requests without a response yet", ["path"], registry=self._registry
        )
        self._live_version = Gauge(
            "catalog_query_live_version",
            "Model version that serves requests, 0 before the first",
            ["kind"],
            registry=self._registry,
        )

    def follow_queue(self, path: str, read_length: Callable[[], float]) -> None:
        """Export the length of a queue, read at each scrape."""
        self._queue_length.labels(path).set_function(read_length)

    def follow_version(self, kind: str, read_version: Callable[[], float]) -> None:
        """Export the served version, read at each scrape."""
        self._live_version.labels(kind).set_function(read_version)

    def render(self) -> bytes:
        """Return all metrics in the text format of Prometheus."""
        return generate_latest(self._registry)
