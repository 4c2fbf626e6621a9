"""A Hugging Face hub on loopback, for its real client: the endpoints that downloads use, over folders on disk.

``folder/owner/name/revision/...`` holds the files of each revision; `main` is that of a hub id without one.
Weights are served as the hub serves large files: from another address, to which it redirects.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urlsplit

LARGE_SUFFIXES = (".bin", ".safetensors", ".msgpack", ".h5", ".onnx")
TOKEN = "hf_of_an_account_with_access"
CHUNK_BYTES = 65536


@dataclass(frozen=True)
class HubServer:
    """Where it listens, what it hands out, and to whom; ``requests`` are what it was sent, in order."""

    url: str
    folder: Path
    requests: list[str] = field(default_factory=list)
    gated: set[str] = field(default_factory=set)
    """Repositories that only `TOKEN` opens."""
    cut: set[str] = field(default_factory=set)
    """Files whose next download ends halfway."""

    @property
    def downloads(self) -> set[str]:
        """The files whose content was sent."""
        gets = [
            request.removeprefix("GET ").partition(" ")[0] for request in self.requests if request.startswith("GET")
        ]
        return {path.rsplit("/", 1)[-1] for path in gets}

    def find_revision(self, name: str, revision: str) -> Path | None:
        """The folder of a branch, or of a commit."""
        folders = [path for path in sorted((self.folder / name).iterdir()) if path.is_dir()]
        return next((path for path in folders if revision in {path.name, hash_commit(path)}), None)


def hash_commit(revision: Path) -> str:
    """The commit that a branch is at."""
    return hashlib.sha1(str(revision).encode(), usedforsecurity=False).hexdigest()


@contextmanager
def run_hub_server(folder: Path) -> Iterator[HubServer]:
    """Serve a folder on a free port until the block ends."""
    hub: list[HubServer] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, hub))
    hub.append(HubServer(f"http://127.0.0.1:{server.server_port}", folder))
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield hub[0]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60

    def __init__(self, hub: list[HubServer], *arguments: object) -> None:
        self._hub = hub[0]
        super().__init__(*arguments)  # type: ignore[arg-type]

    def log_message(self, *_: object) -> None:
        """Print nothing."""

    def do_HEAD(self) -> None:
        """Describe a file."""
        self._serve()

    def do_GET(self) -> None:
        """Send a file, or what is known of a repository."""
        self._serve()

    def _serve(self) -> None:
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        self._hub.requests.append(f"{self.command} {self.path} {self.headers.get('Range', '')}".strip())
        match parts:
            case ["api", "models", owner, name]:
                self._send_repository(f"{owner}/{name}", "main")
            case ["api", "models", owner, name, "revision", revision]:
                self._send_repository(f"{owner}/{name}", revision)
            case ["api", "models", owner, name, "tree", revision, *_]:
                self._send_tree(f"{owner}/{name}", revision)
            case [owner, name, "resolve", revision, *path]:
                self._send_resolved(f"{owner}/{name}", revision, "/".join(path))
            case ["cdn", owner, name, revision, *path]:
                self._send_content(self._hub.folder / owner / name / revision / "/".join(path))
            case _:
                self._send_error(404, "EntryNotFound")

    def _find(self, name: str, revision: str) -> Path | None:
        """The folder of a revision; None after an error was sent."""
        if not (self._hub.folder / name).is_dir():
            # The hub does not tell strangers which repositories there are.
            is_known = self.headers.get("Authorization") == f"Bearer {TOKEN}"
            self._send_error(404 if is_known else 401, "RepoNotFound")
            return None
        folder = self._hub.find_revision(name, revision)
        if folder is None:
            self._send_error(404, "RevisionNotFound")
        return folder

    def _send_repository(self, name: str, revision: str) -> None:
        if folder := self._find(name, revision):
            siblings = [{"rfilename": path.relative_to(folder).as_posix()} for path in _list_files(folder)]
            self._send_json({"id": name, "sha": hash_commit(folder), "private": False, "siblings": siblings})

    def _send_tree(self, name: str, revision: str) -> None:
        if folder := self._find(name, revision):
            self._send_json([_describe(folder, path) for path in _list_files(folder)])

    def _send_resolved(self, name: str, revision: str, file: str) -> None:
        folder = self._find(name, revision)
        if folder is None:
            return
        if name in self._hub.gated and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._send_error(403 if self.headers.get("Authorization") else 401, "GatedRepo")
            return
        path = folder / file
        if not path.is_file():
            self._send_error(404, "EntryNotFound")
            return
        about = {"X-Repo-Commit": hash_commit(folder), "Accept-Ranges": "bytes"}
        if path.suffix not in LARGE_SUFFIXES:
            self._send_content(path, about)
            return
        linked = {"X-Linked-Etag": f'"{_hash(path, "sha256")}"', "X-Linked-Size": str(path.stat().st_size)}
        cdn = self._hub.url.replace("127.0.0.1", "localhost")
        location = {"Location": f"{cdn}/cdn/{name}/{folder.name}/{file}", "Content-Length": "0"}
        self._send_headers(302, about | linked | location)

    def _send_content(self, path: Path, headers: dict[str, str] | None = None) -> None:
        content = path.read_bytes()
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
        partial_headers = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if start else {}
        about = {"ETag": f'"{_hash(path, "sha1")}"', "Content-Length": str(len(content) - start)}
        self._send_headers(206 if start else 200, (headers or {}) | about | partial_headers)
        if self.command == "HEAD":
            return
        if path.name in self._hub.cut:
            self._hub.cut.remove(path.name)
            self.wfile.write(content[start : start + (len(content) - start) // 2])
            self.close_connection = True
            return
        self.wfile.write(content[start:])

    def _send_json(self, value: object) -> None:
        content = json.dumps(value).encode()
        self._send_headers(200, {"Content-Type": "application/json", "Content-Length": str(len(content))})
        self.wfile.write(content)

    def _send_error(self, status: int, code: str) -> None:
        self._send_headers(status, {"X-Error-Code": code, "X-Error-Message": code, "Content-Length": "0"})

    def _send_headers(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


def _list_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _describe(folder: Path, path: Path) -> dict[str, object]:
    size = path.stat().st_size
    about = {"type": "file", "path": path.relative_to(folder).as_posix(), "size": size, "oid": _hash(path, "sha1")}
    if path.suffix not in LARGE_SUFFIXES:
        return about
    return about | {"lfs": {"oid": _hash(path, "sha256"), "size": size, "pointerSize": 134}}


def _hash(path: Path, algorithm: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()
