"""A real HTTP server that receives webhooks."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Receiver:
    """The requests that a server got, and the status with which it responds. It waits for ``is_open`` before that."""

    url: str = ""
    status: int = 204
    is_open: threading.Event = field(default_factory=threading.Event)
    headers: list[dict[str, str]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    @property
    def changes(self) -> list[dict[str, Any]]:
        """Return all changes that it got."""
        return [change for body in self.bodies for change in json.loads(body)["changes"]]


@contextmanager
def run_receiver() -> Iterator[Receiver]:
    """Run a server on loopback until the end of the block."""
    receiver = Receiver()
    receiver.is_open.set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            receiver.headers.append(dict(self.headers))
            receiver.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            receiver.is_open.wait(60)
            self.send_response(receiver.status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver.url = f"http://127.0.0.1:{server.server_port}/tags"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield receiver
    finally:
        receiver.is_open.set()
        server.shutdown()
        server.server_close()
        thread.join()
