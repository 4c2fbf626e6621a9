"""Send requests that are accepted but cannot finish yet, and requests with an incomplete body."""

import multiprocessing
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from urllib.parse import urlsplit

import psutil

from fixtures.job_processes import wait_until
from tests.serve.conftest import RunningService


@contextmanager
def stop_decoding(processes: Sequence[psutil.Process] | None = None) -> Iterator[Callable[[], None]]:
    """Suspend decoding processes (by default all children of this process) until the end of the block or a call."""
    if processes is None:
        processes = [psutil.Process(child.pid) for child in multiprocessing.active_children()]
    assert processes

    def resume() -> None:
        for process in processes:
            process.resume()

    for process in processes:
        process.suspend()
    try:
        yield resume
    finally:
        resume()


@contextmanager
def send_image(service: RunningService, content: bytes) -> Iterator[socket.socket]:
    """Yield a client whose image was accepted. It gets no response while decoding is suspended."""
    with begin_image(service, content) as client:
        client.sendall(content[len(content) // 2 :])
        name = 'catalog_query_queue_length{path="/classify"}'
        wait_until(lambda: service.read_metrics()[name] > 0)
        yield client


def begin_image(service: RunningService, content: bytes) -> socket.socket:
    """Return a client that has sent half of the body."""
    address = urlsplit(service.url)
    client = socket.create_connection((address.hostname, address.port))
    head = f"POST /classify HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Length: {len(content)}\r\n\r\n"
    client.sendall(head.encode() + content[: len(content) // 2])
    return client


def read_status(client: socket.socket) -> int:
    """Wait for the response and return its status."""
    client.settimeout(120)
    return int(client.recv(1000).split()[1])
