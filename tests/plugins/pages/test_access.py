"""Without a login nothing answers, and every role may do what it may."""

from collections.abc import Callable, Iterator
from functools import partial

import pytest

from tests.plugins.pages.conftest import BrowsedShop, Role, Visitor

VALUES = {"image_id": "1", "version": "1", "kind": "classifier", "name": "pages.css", "review_id": "1"}


def list_routes() -> Iterator[tuple[str, str]]:
    """Method and address of every route that the application has."""
    from catalog_airflow.pages.app import create_pages_app
    from fastapi.routing import APIRoute

    for route in create_pages_app().routes:
        assert isinstance(route, APIRoute), f"{route} asks nobody who is there"
        for method in route.methods:
            yield method, route.path.format(**VALUES)


def test_nothing_answers_without_a_login(visit: Callable[[Role | None], Visitor]) -> None:
    stranger, routes = visit(None), list(list_routes())
    assert len(routes) > 8
    for method, path in routes:
        answer = stranger.client.request(method, f"/catalog{path}", follow_redirects=False)
        assert answer.status_code == 401, (method, path)
        assert "Log in" in answer.text


def test_a_broken_or_foreign_token_is_no_login(visit: Callable[[Role | None], Visitor]) -> None:
    stranger = visit(None)
    stranger.client.cookies.set("_token", "x.y.z")
    assert {stranger.client.request(m, f"/catalog{p}").status_code for m, p in list_routes()} <= {401, 403}


def test_whoever_may_look_may_look(visit: Callable[[Role | None], Visitor]) -> None:
    viewer = visit("viewer")
    for page in ("overview", "photos", "search", "review", "models", "failures", "static/pages.css"):
        assert viewer.get(page).status_code == 200, page


def test_posts_are_refused_to_those_who_may_only_look(visit: Callable[[Role | None], Visitor]) -> None:
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
def test_posts_from_other_origins_are_refused(
    visit: Callable[[Role | None], Visitor], browsed: BrowsedShop, headers: dict[str, str]
) -> None:
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
    visit: Callable[[Role | None], Visitor], browsed: BrowsedShop, headers: dict[str, str]
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


def test_behind_a_proxy_the_public_address_is_that_of_airflow(
    visit: Callable[[Role | None], Visitor], monkeypatch: pytest.MonkeyPatch
) -> None:
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
"""An uploaded photo is a question."""


@pytest.mark.parametrize("page", ["overview", "photos", "search", "review", "models", "failures"])
def test_pages_bear_a_strict_policy(visit: Callable[[Role | None], Visitor], page: str) -> None:
    answer = visit("viewer").get(page)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http:" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "style=" not in answer.text
    assert " onclick" not in answer.text
