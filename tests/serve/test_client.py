"""Test the results and errors of the client, including those caused by other servers at the address."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import create_server

import pytest

from fixtures.shop import Shop
from jobs.errors import PermanentError, RetryableError
from jobs.local.ports import LOOPBACK, find_free_port
from jobs.serve.client import QueryClient, QueryRefusedError
from jobs.settings import PROJECT_ROOT
from tests.serve.conftest import RunningService, run_service


@contextmanager
def run_other_server(status: int, body: bytes) -> Iterator[str]:
    """Run a server that sends the same response to every request."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer((LOOPBACK, 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://{LOOPBACK}:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def test_an_invalid_query_has_its_own_error(service: RunningService) -> None:
    with QueryClient(service.url) as client:
        with pytest.raises(QueryRefusedError, match="unsupported_format: no decoder recognizes these bytes") as refused:
            client.classify(b"no image")
        assert refused.value.reason == "unsupported_format"
        with pytest.raises(QueryRefusedError, match="the query is empty"):
            client.embed_text(" ")
        with pytest.raises(QueryRefusedError, match="surrogate"):
            client.embed_text("\ud800")
        with pytest.raises(QueryRefusedError, match="object_too_large"):
            client.embed_image(bytes(50_000_001))


def test_a_service_without_a_model_is_a_retryable_error(shop: Shop) -> None:
    with run_service(shop.connections) as service, QueryClient(service.url) as client:
        with pytest.raises(RetryableError, match=r"no classifier is live yet: run `catalog retrain` first"):
            client.classify(b"")
        with pytest.raises(RetryableError, match=r"is not available now: .*no embedding space is live yet"):
            client.embed_text("hat")


def test_the_error_for_a_stopped_service_says_how_to_start_it() -> None:
    url = f"http://{LOOPBACK}:{find_free_port()}"
    with (
        QueryClient(url) as client,
        pytest.raises(RetryableError, match=rf"{url}: start it with `catalog serve`"),
    ):
        client.embed_text("hat")


def test_a_hanging_service_is_a_timeout() -> None:
    with create_server((LOOPBACK, 0)) as silent:
        url = f"http://{LOOPBACK}:{silent.getsockname()[1]}"
        with QueryClient(url, timeout_seconds=0.2) as client, pytest.raises(RetryableError, match="in time"):
            client.embed_text("hat")


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, b'{"detail":"Not Found"}'),
        (200, b"<html>hello</html>"),
        (200, json.dumps({"model_version_id": 1}).encode()),
        (502, b""),
    ],
)
def test_the_error_for_another_server_names_the_setting(status: int, body: bytes) -> None:
    expected = pytest.raises(PermanentError, match="CATALOG_QUERY_SERVICE_URL")
    with run_other_server(status, body) as url, QueryClient(url) as client, expected:
        client.embed_text("hat")


def test_the_client_imports_nothing_heavy() -> None:
    code = "import sys, jobs.serve.client; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=PROJECT_ROOT, capture_output=True, text=True, check=True)
    assert not {"torch", "transformers", "fastapi", "uvicorn", "sqlalchemy", "boto3", "openvino"} & set(
        loaded.stdout.split()
    )
