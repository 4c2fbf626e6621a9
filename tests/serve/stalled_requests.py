"""Questions that are taken in and cannot be answered yet, and some whose body does not end."""

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
    """Decoding processes stand still until the end or a call, by default those of services in this process."""
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
def ask_in_vain(service: RunningService, content: bytes) -> Iterator[socket.socket]:
    """A client whose photo has been taken in, and is not answered while decoding stands still."""
    with begin_photo(service, content) as client:
        client.sendall(content[len(content) // 2 :])
        name = 'catalog_query_queue_length{path="/classify"}'
        wait_until(lambda: service.read_metrics()[name] > 0)
        yield client


def begin_photo(service: RunningService, content: bytes) -> socket.socket:
    """A client that has sent half of its body."""
    address = urlsplit(service.url)
    client = socket.create_connection((address.hostname, address.port))
    head = f"POST /classify HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Length: {len(content)}\r\n\r\n"
    client.sendall(head.encode() + content[: len(content) // 2])
    return client


def read_status(client: socket.socket) -> int:
    """The status of the answer, once it comes."""
    client.settimeout(120)
    return int(client.recv(1000).split()[1])
