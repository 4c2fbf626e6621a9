"""Run a query service in this process, with a real bucket, database and checkpoints."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from socket import create_server
from typing import Any

import httpx
import pytest

from fixtures.shop import Shop, TinyModels, promote_tiny_models
from jobs.connections import Connections
from jobs.ingest.ingest import ingest
from jobs.ingest.plan import IngestOptions

PATIENCE_SECONDS = 120.0


@dataclass(frozen=True)
class RunningService:
    """A service and an HTTP client, for requests that the project's own client cannot send."""

    url: str
    http: httpx.Client

    def read_health(self) -> dict[str, Any]:
        """Return the body of ``/health``, whatever its status."""
        health: dict[str, Any] = self.http.get("/health").json()
        return health

    def wait_until(self, is_so: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Poll ``/health`` until the response satisfies the condition."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not is_so(health := self.read_health()):
            assert time.monotonic() < deadline, health
            time.sleep(0.05)
        return health

    def wait_until_ready(self) -> dict[str, Any]:
        """Wait until both models are loaded."""
        return self.wait_until(lambda health: "classifier" in health)

    def read_metrics(self) -> dict[str, float]:
        """Return the value of each metric, by name and labels."""
        lines = [line for line in self.http.get("/metrics").text.splitlines() if not line.startswith("#")]
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


@contextmanager
def run_service(connections: Connections) -> Iterator[RunningService]:
    """Serve until the end of the block, then finish all requests and threads."""
    from jobs.serve.server import prepare_server

    with create_server(("127.0.0.1", 0)) as listener, prepare_server(connections) as server:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            with httpx.Client(base_url=url, timeout=PATIENCE_SECONDS, trust_env=False) as http:
                yield RunningService(url, http)
        finally:
            server.should_exit = True
            thread.join()


def go_live(shop: Shop) -> Shop:
    """Make the champions of a shop live by tagging four images."""
    shop.put_images(4)
    ingest(shop.connections, IngestOptions())
    return shop


@pytest.fixture(scope="module")
def live_shop(lasting_shop: Shop, tiny_models: TinyModels) -> Shop:
    """Set up a shop with four images and live champions. Tests of a module share it and must not change it."""
    return go_live(promote_tiny_models(lasting_shop, tiny_models))


@pytest.fixture(scope="module")
def service(live_shop: Shop) -> Iterator[RunningService]:
    """Run a service for this shop, and wait until it is ready."""
    with run_service(live_shop.connections) as service:
        service.wait_until_ready()
        yield service
