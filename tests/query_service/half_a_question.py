"""Questions that are taken in and cannot be answered yet, since their body does not end."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from tests.lock_waits import wait_until
from tests.query_service.conftest import RunningService


@contextmanager
def send_half_a_photo(service: RunningService, content: bytes) -> Iterator[socket.socket]:
    """A client that stops in the middle of its body; its question has been taken in."""
    with begin_photo(service, content) as client:
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
