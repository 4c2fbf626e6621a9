"""A proxy before the real S3 endpoint that breaks the objects it is told to break."""

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

ERROR = "<?xml version='1.0'?><Error><Code>{code}</Code><Message>as the test wants it</Message></Error>"


@dataclass(frozen=True)
class ProxiedAnswer:
    """An answer on its way; ``path`` is that of the request, with its query."""

    path: str
    status: int
    content: bytes
    headers: dict[str, str]

    @property
    def is_listing(self) -> bool:
        """Whether it is a page of a listing."""
        return "list-type" in self.path


Edit = Callable[[ProxiedAnswer], ProxiedAnswer]


@dataclass
class FaultProxy:
    """What to break; at first nothing.

    ``answers`` holds, by key, the status and S3 error code of every GET; ``renamed`` shows a key under another
    name in listings, and ``objects`` holds what is handed out under such a name. Each GET takes ``delay_seconds``
    longer, and ``edit`` changes what a GET that succeeds is answered.
    """

    url: str = ""
    answers: dict[str, tuple[int, str]] = field(default_factory=dict)
    renamed: dict[str, str] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    requested: list[str] = field(default_factory=list)
    delay_seconds: float = 0.0
    edit: Edit | None = None


@contextmanager
def run_fault_proxy(target_url: str) -> Iterator[FaultProxy]:  # noqa: C901
    """Forward to ``target_url``; the Host header stays as it was signed."""
    proxy, target = FaultProxy(), urlsplit(target_url).netloc

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            body = self.rfile.read(length)
            key = unquote(urlsplit(self.path).path).split("/", 2)[-1]
            if self.command == "GET":
                proxy.requested.append(key)
                time.sleep(proxy.delay_seconds)
            if self.command == "GET" and key in proxy.answers:
                status, code = proxy.answers[key]
                self.answer(status, ERROR.format(code=code).encode(), {"Content-Type": "application/xml"})
                return
            if self.command == "GET" and key in proxy.objects:
                etag = hashlib.md5(proxy.objects[key]).hexdigest()
                self.answer(200, proxy.objects[key], {"ETag": f'"{etag}"'})
                return
            # Not a client that would tidy the path up: the signature covers it as it is.
            with closing(HTTPConnection(target)) as upstream:
                upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                for name, value in self.headers.items():
                    upstream.putheader(name, value)
                upstream.endheaders(body)
                answer = upstream.getresponse()
                headers = {name: value for name, value in answer.getheaders() if name.lower() in PASSED_ON}
                content = answer.read()
                for old, new in proxy.renamed.items():
                    content = content.replace(f"<Key>{old}</Key>".encode(), f"<Key>{new}</Key>".encode())
                length = int(answer.getheader("Content-Length") or 0) if self.command == "HEAD" else 0
                relayed = ProxiedAnswer(self.path, answer.status, content, headers)
                if proxy.edit and self.command == "GET" and answer.status == 200:
                    relayed = proxy.edit(relayed)
                self.answer(relayed.status, relayed.content, relayed.headers, length)

        def answer(self, status: int, content: bytes, headers: dict[str, str], length_of_head: int = 0) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content) or length_of_head))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_any  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        proxy.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield proxy
        finally:
            server.shutdown()
            thread.join()


PASSED_ON = {"etag", "content-type", "content-range", "last-modified"}
