"""Run the command `catalog serve` until it gets a signal."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil

from fixtures.job_processes import start_job, wait_until
from fixtures.shop import Shop, make_image
from jobs.errors import EXIT_PERMANENT
from jobs.local.ports import LOOPBACK, find_free_port
from jobs.local.services import is_alive
from jobs.serve.client import QueryClient
from jobs.settings import PROJECT_ROOT
from tests.serve.conftest import RunningService
from tests.serve.stalled_requests import read_status, send_image, stop_decoding


@contextmanager
def start_service(shop: Shop, port: int, log: Path) -> "Iterator[subprocess.Popen[bytes]]":
    """Run the command. Kill it at the end of the block if it is still running."""
    environment = {**os.environ, **shop.environment, "CATALOG_SERVE_PORT": str(port)}
    with (
        log.open("wb") as errors,
        subprocess.Popen(
            [sys.executable, "-m", "jobs", "serve"], cwd=PROJECT_ROOT, env=environment, stderr=errors
        ) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def connect(port: int) -> Iterator[RunningService]:
    """Wait until the service listens, then yield a client."""
    url = f"http://{LOOPBACK}:{port}"
    with httpx.Client(base_url=url, timeout=120, trust_env=False) as http:
        wait_until(lambda: is_listening(port))
        yield RunningService(url, http)


def read_maps(process: "subprocess.Popen[bytes]") -> str:
    """Return Linux's list of the files that a process has mapped."""
    return Path(f"/proc/{process.pid}/maps").read_text()


def test_a_signal_ends_it_after_the_accepted_requests(live_shop: Shop, tmp_path: Path) -> None:
    image = make_image(1)
    port = find_free_port()
    with start_service(live_shop, port, tmp_path / "log") as process, connect(port) as service:
        service.wait_until_ready()
        with QueryClient(service.url) as client:
            assert client.classify(image).top_3
        assert "libtorch" in read_maps(process)
        children = psutil.Process(process.pid).children(recursive=True)
        assert children
        with stop_decoding(children) as resume, send_image(service, image) as late:
            process.send_signal(signal.SIGTERM)
            wait_until(lambda: not is_listening(port))
            assert process.poll() is None
            resume()
            assert read_status(late) == 200
        assert process.wait(120) == 0
    wait_until(lambda: not any(is_alive(child) for child in children))
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_a_signal_ends_it_while_it_waits_for_the_first_model(shop: Shop, tmp_path: Path) -> None:
    port = find_free_port()
    with start_service(shop, port, tmp_path / "log") as process, connect(port) as service:
        assert service.http.get("/health").status_code == 503
        # Torch is not loaded before a model needs it.
        assert "libtorch" not in read_maps(process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0


def test_a_taken_port_is_one_line(shop: Shop, tmp_path: Path) -> None:
    with socket.create_server((LOOPBACK, 0)) as holder:
        port = holder.getsockname()[1]
        with start_service(shop, port, tmp_path / "log") as process:
            assert process.wait(120) == EXIT_PERMANENT
    (line,) = (tmp_path / "log").read_text().splitlines()
    assert line.startswith(f"error: cannot listen on {LOOPBACK}:{port}: ")
    assert "CATALOG_SERVE_PORT" in line


def test_a_public_address_needs_a_token(shop: Shop, tmp_path: Path) -> None:
    environment = {"CATALOG_SERVE_HOST": "0.0.0.0", "CATALOG_SERVE_PORT": str(find_free_port())}
    job = start_job("serve", environment=shop.environment | environment, messages=tmp_path / "messages")
    job.join(60)
    assert job.exitcode == 78
    assert "set CATALOG_QUERY_TOKEN" in (tmp_path / "messages").read_text()


def is_listening(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex((LOOPBACK, port)) == 0
