"""Bodies that are refused before they are read, over a real server."""

import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvicorn

from tests.plugins.pages.conftest import Role

MakeLogin = Callable[[Role], str]
TYPE = "Content-Type: application/x-www-form-urlencoded"


@pytest.fixture
def port(mounted_pages: Any) -> Iterator[int]:
    """The pages on a port of their own."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(mounted_pages, log_config=None, lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield listener.getsockname()[1]
        server.should_exit = True
        thread.join()


def post(port: int, path: str, *headers: str, body: bytes = b"") -> tuple[int, bool]:
    """Send the head of a post and what there is of its body: the status, and whether the connection ends."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        client.sendall(
            "\r\n".join([f"POST /catalog/{path} HTTP/1.1", "Host: x", TYPE, *headers, "", ""]).encode() + body
        )
        answer = client.recv(100_000).decode()
    return int(answer.split()[1]), "\nconnection: close" in answer.lower()


def write_cookie(login: str) -> str:
    return f"Cookie: _token={login}"


def test_nothing_is_read_of_a_stranger(port: int) -> None:
    for headers in (["Content-Length: 60000000"], ["Transfer-Encoding: chunked"]):
        assert post(port, "search", *headers) == (401, True)
        assert post(port, "search", write_cookie("x.y.z"), *headers) == (403, True)


@pytest.mark.parametrize(("path", "announced"), [("search", 64_000_001), ("failures", 256_001), ("review", 60_000_000)])
def test_what_announces_too_much_is_not_read(port: int, make_login: MakeLogin, path: str, announced: int) -> None:
    cookie = write_cookie(make_login("admin"))
    assert post(port, path, cookie, f"Content-Length: {announced}") == (413, True)


def test_what_brings_more_than_it_may_is_cut_off(port: int, make_login: MakeLogin) -> None:
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    cookie = write_cookie(make_login("admin"))
    assert post(port, "failures", cookie, "Transfer-Encoding: chunked", body=4 * chunk) == (413, True)


def test_what_takes_too_long_is_given_up(port: int, make_login: MakeLogin, monkeypatch: pytest.MonkeyPatch) -> None:
    from catalog_airflow.pages import body_limit

    monkeypatch.setattr(body_limit, "FORM_SECONDS", 0.3)
    cookie = write_cookie(make_login("admin"))
    assert post(port, "failures", cookie, "Content-Length: 100", body=b"image=") == (408, True)
