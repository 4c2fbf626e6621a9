"""Every route requires a login and its right, posts must be of our own origin, and bodies are limited."""

import socket
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import uvicorn

from tests.plugins.pages.conftest import BrowsedShop, Role, Visit

VALUES = {
    "image_id": "1",
    "version": "1",
    "kind": "classifier",
    "name": "pages.css",
    "review_id": "1",
    "path": "nowhere",
}


def list_routes() -> Iterator[tuple[str, str]]:
    """Yield method and path of every route of the application."""
    from catalog_airflow.pages.app import create_pages_app
    from fastapi.routing import APIRoute

    for route in create_pages_app().routes:
        assert isinstance(route, APIRoute), f"{route} has no login check"
        for method in route.methods:
            yield method, route.path_format.format(**VALUES)


def test_every_route_requires_a_login(visit: Visit) -> None:
    stranger, routes = visit(None), list(list_routes())
    assert len(routes) > 8
    for method, path in routes:
        answer = stranger.client.request(method, f"/catalog{path}", follow_redirects=False)
        assert answer.status_code == 401, (method, path)
        assert "Log in" in answer.text


def test_an_invalid_token_is_not_a_login(visit: Visit) -> None:
    stranger = visit(None)
    stranger.client.cookies.set("_token", "x.y.z")
    assert {stranger.client.request(m, f"/catalog{p}").status_code for m, p in list_routes()} <= {401, 403}


def test_a_viewer_may_view_every_page(visit: Visit) -> None:
    viewer = visit("viewer")
    for page in ("overview", "images", "search", "map", "review", "models", "failures", "static/map.js"):
        assert viewer.get(page).status_code == 200, page


def test_a_viewer_may_not_post(visit: Visit) -> None:
    viewer = visit("viewer")
    for method, path in list_routes():
        if method == "POST" and path not in READING_POSTS:
            assert viewer.post(path.lstrip("/")).status_code == 403, path


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "http://testserver"},
        {"Origin": "https://evil.test"},
        {"Origin": "http://other.testserver"},
        {"Origin": "http://testserver:8080"},
        {"Origin": "http://testserver.evil.test"},
        {"Origin": "null"},
        {"Origin": "https://evil.test", "X-Forwarded-Host": "evil.test"},
    ],
)
def test_posts_from_other_origins_are_refused(visit: Visit, browsed: BrowsedShop, headers: dict[str, str]) -> None:
    admin = visit("admin")
    for method, path in list_routes():
        if method == "POST":
            response = admin.client.post(f"/catalog{path}", headers=headers, follow_redirects=False)
            assert (response.status_code, "another site" in response.text) == (403, True), path
    label = {"image_id": str(browsed.image_ids[0]), "reason": "audit", "answer": "hat"}
    assert admin.client.post("/catalog/review", data=label, headers=headers).status_code == 403
    assert browsed.shop.query("SELECT count(*) FROM catalog.labels") == [(0,)]
    # Links from elsewhere may lead here.
    assert admin.client.get("/catalog/review", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "same-origin", "Origin": "https://public.example"},
        # The user typed or reloaded it: no page can send this.
        {"Sec-Fetch-Site": "none"},
        {"Origin": "http://testserver"},
        # A script, which attaches a login on purpose.
        {},
    ],
)
def test_posts_from_our_pages_and_from_scripts_pass(
    visit: Visit, browsed: BrowsedShop, headers: dict[str, str]
) -> None:
    admin = visit("admin")
    for method, path in list_routes():
        if method == "POST":
            response = admin.client.post(f"/catalog{path}", headers=headers, follow_redirects=False)
            assert response.status_code in {404, 409, 422}, path
    label = {"image_id": str(browsed.image_ids[0]), "reason": "audit", "answer": "hat"}
    response = admin.client.post("/catalog/review", data=label, headers=headers, follow_redirects=False)
    assert response.status_code == 303
    assert browsed.shop.query("SELECT category FROM catalog.labels") == [("hat",)]


def test_behind_a_proxy_the_public_address_is_that_of_airflow(visit: Visit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://shop.example:8443/airflow")
    post = partial(visit("admin").client.post, "/catalog/failures", follow_redirects=False)
    for origin, status in [
        ("https://shop.example:8443", 422),
        ("http://testserver", 422),
        ("https://shop.example", 403),
        ("https://other.example:8443", 403),
    ]:
        assert post(headers={"Origin": origin}).status_code == status, origin
    # Airflow ignores this header, and so do the pages.
    forwarded = {"Origin": "https://other.example", "X-Forwarded-Host": "other.example"}
    assert post(headers=forwarded).status_code == 403


READING_POSTS = {"/search"}
"""A search by image changes nothing."""


@pytest.mark.parametrize("page", ["overview", "images", "search", "review", "models", "failures"])
def test_pages_have_a_strict_content_security_policy(visit: Visit, page: str) -> None:
    answer = visit("viewer").get(page)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http:" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "style=" not in answer.text
    assert " onclick" not in answer.text


MakeLogin = Callable[[Role], str]
TYPE = "Content-Type: application/x-www-form-urlencoded"


@pytest.fixture
def port(mounted_pages: Any) -> Iterator[int]:
    """The pages on their own port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(mounted_pages, log_config=None, lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield listener.getsockname()[1]
        server.should_exit = True
        thread.join()


def post(port: int, path: str, *headers: str, body: bytes = b"") -> tuple[int, bool]:
    """Send headers and the start of a body; return the status, and whether the connection is closed."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        client.sendall(
            "\r\n".join([f"POST /catalog/{path} HTTP/1.1", "Host: x", TYPE, *headers, "", ""]).encode() + body
        )
        answer = client.recv(100_000).decode()
    return int(answer.split()[1]), "\nconnection: close" in answer.lower()


def write_cookie(login: str) -> str:
    return f"Cookie: _token={login}"


def test_a_body_without_a_login_is_not_read(port: int) -> None:
    for headers in (["Content-Length: 60000000"], ["Transfer-Encoding: chunked"]):
        assert post(port, "search", *headers) == (401, True)
        assert post(port, "search", write_cookie("x.y.z"), *headers) == (403, True)


@pytest.mark.parametrize(("path", "announced"), [("search", 64_000_001), ("failures", 256_001), ("review", 60_000_000)])
def test_a_body_with_a_too_large_length_is_not_read(
    port: int, make_login: MakeLogin, path: str, announced: int
) -> None:
    cookie = write_cookie(make_login("admin"))
    assert post(port, path, cookie, f"Content-Length: {announced}") == (413, True)


def test_a_body_over_the_limit_is_cut_off(port: int, make_login: MakeLogin) -> None:
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    cookie = write_cookie(make_login("admin"))
    assert post(port, "failures", cookie, "Transfer-Encoding: chunked", body=4 * chunk) == (413, True)


def test_a_slow_body_times_out(port: int, make_login: MakeLogin, monkeypatch: pytest.MonkeyPatch) -> None:
    from catalog_airflow.pages import access

    monkeypatch.setattr(access, "FORM_SECONDS", 0.3)
    cookie = write_cookie(make_login("admin"))
    assert post(port, "failures", cookie, "Content-Length: 100", body=b"image=") == (408, True)
