"""Without a login nothing answers, and every role may do what it may."""

from collections.abc import Callable, Iterator

import pytest

from tests.plugins.pages.conftest import Role, Visitor

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


def test_posts_without_a_token_of_ones_own_are_refused(visit: Callable[[Role | None], Visitor]) -> None:
    from catalog_airflow.pages.access import make_token

    admin = visit("admin")
    for method, path in list_routes():
        if method == "POST":
            for token in ("", "x", make_token("viewer@example.test")):
                answer = admin.post(path.lstrip("/"), token=token)
                assert (answer.status_code, "out of date" in answer.text) == (403, True), path


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
