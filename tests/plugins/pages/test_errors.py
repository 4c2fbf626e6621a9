"""Errors: the login with a return address, a way back for unknown ids, and messages that name the field."""

from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from jobs.errors import ConfigurationError, NotFoundError, RefusedError, RetryableError
from tests.plugins.pages.conftest import BrowsedShop, Visit, read_text

NAVIGATION = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8", "sec-fetch-dest": "document"}
UNKNOWN = [
    ("product?id=none", "images", "There is no product"),
    ("models/999", "models", "There is no model version 999"),
    ("models/999/promote", "models", "not a candidate"),
    ("evaluations/classifier?run=none", "models", "no evaluation page yet"),
    ("run?run=none", "overview", "no results yet"),
    ("nowhere", "overview", "There is no such page"),
]


def go(visitor: Any, path: str, **headers: str) -> Any:
    """Request a page as a browser does for a link."""
    return visitor.client.get(f"/catalog/{path}", headers=NAVIGATION | headers, follow_redirects=False)


def test_a_visitor_without_a_login_is_sent_to_it_and_back(visit: Visit) -> None:
    answer = go(visit(None), "images?category=a+b&text=%22x%22")
    assert answer.status_code == 303
    location = urlsplit(answer.headers["location"])
    assert (location.netloc, location.path) == ("", "/api/v2/auth/login")
    assert parse_qs(location.query) == {"next": ["/catalog/images?category=a+b&text=%22x%22"]}
    assert answer.headers["cache-control"] == "no-store"


def test_airflow_accepts_the_return_address(
    visit: Visit, browsed: BrowsedShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.api_fastapi.core_api.security import is_safe_url

    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://shop.example/airflow")
    location = urlsplit(go(visit(None), "product?id=P1").headers["location"])
    (target,) = parse_qs(location.query)["next"]
    assert (location.path, target) == ("/airflow/api/v2/auth/login", "/airflow/catalog/product?id=P1")
    assert is_safe_url(target)


def test_an_outdated_token_also_leads_to_the_login(visit: Visit) -> None:
    stranger = visit(None)
    stranger.client.cookies.set("_token", "x.y.z")
    assert go(stranger, "overview").status_code == 303


@pytest.mark.parametrize(
    "headers",
    [
        # What scripts, images and style sheets send.
        {"accept": "*/*", "sec-fetch-dest": "empty"},
        {"accept": "image/avif,image/webp,*/*;q=0.8", "sec-fetch-dest": "image"},
        {"accept": "text/css,*/*;q=0.1", "sec-fetch-dest": "style"},
    ],
)
@pytest.mark.parametrize("path", ["progress", "thumbnails/1", "static/pages.css", "overview"])
def test_only_pages_redirect(visit: Visit, path: str, headers: dict[str, str]) -> None:
    assert go(visit(None), path, **headers).status_code == 401


def test_a_form_does_not_redirect(visit: Visit) -> None:
    stranger = visit(None)
    assert stranger.client.post("/catalog/failures", headers=NAVIGATION, follow_redirects=False).status_code == 401


def test_a_frame_offers_the_login_of_the_window_around_it(visit: Visit) -> None:
    answer = go(visit(None), "overview", **{"sec-fetch-dest": "iframe"})
    assert answer.status_code == 401
    assert "data-reload" in answer.text


@pytest.mark.parametrize(("path", "back", "message"), UNKNOWN)
def test_an_unknown_id_has_navigation_and_a_way_back(visit: Visit, path: str, back: str, message: str) -> None:
    answer = go(visit("op"), path)
    assert answer.status_code == 404
    assert message in answer.text
    assert "<h1>Not found</h1>" in answer.text or path.startswith("run?")
    assert '<nav class="pages"' in answer.text
    assert f'<a class="button" href="/catalog/{back}">' in answer.text


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("images?min_confidence=200", "Confidence from: enter a number from 0 to 100."),
        ("images?max_confidence=x", "Confidence to: enter a number from 0 to 100."),
        ("images?version=x", "Model version: enter the number of a version."),
        (f"images?category={'x' * 201}", "Category: enter at most 200 characters."),
        ("failures?after=-1", "Page: enter a number of at least 0."),
        ("product", "Product: enter a value."),
        ("product?id=", "Product: enter a value."),
        ("evaluations/other?run=x", "Kind of model: choose 'classifier' or 'encoder'."),
    ],
)
def test_messages_name_the_field_as_the_page_does(visit: Visit, path: str, message: str) -> None:
    answer = go(visit("viewer"), path)
    assert answer.status_code == 422
    assert "<h1>Check your input</h1>" in answer.text
    assert message in read_text(answer.text).replace("&#39;", "'")
    assert '<nav class="pages"' in answer.text


@pytest.mark.parametrize(
    ("path", "form", "back"),
    [
        ("failures", {"decision": "retry"}, "failures"),
        ("corrections", {"address": "images", "answer": "hat"}, "images"),
        ("review/accept", {}, "review"),
    ],
)
def test_a_form_without_a_selection_says_what_to_select(
    visit: Visit, path: str, form: dict[str, str], back: str
) -> None:
    answer = visit("user").post(path, form)
    assert answer.status_code == 422
    assert f'<a class="button" href="/catalog/{back}">' in answer.text
    assert "Image: select at least one image." in read_text(answer.text)


def test_every_parameter_has_a_label() -> None:
    from catalog_airflow.pages.app import create_pages_app
    from catalog_airflow.pages.errors import FIELDS
    from fastapi.dependencies.utils import get_flat_dependant
    from fastapi.routing import APIRoute
    from pydantic import BaseModel

    names = set()
    for route in create_pages_app().routes:
        assert isinstance(route, APIRoute)
        flat = get_flat_dependant(route.dependant)
        for field in (*flat.path_params, *flat.query_params, *flat.body_params):
            kind: Any = field.field_info.annotation
            is_model = isinstance(kind, type) and issubclass(kind, BaseModel)
            names |= set(kind.model_fields) if is_model else {field.name}
    # Without visible fields: hidden ones, and those with names that are words.
    assert names - FIELDS.keys() <= {"deleted", "disagree", "ignored", "name", "together"}


def test_the_status_tells_whose_turn_it_is() -> None:
    from catalog_airflow.pages.errors import choose_status

    errors = (NotFoundError("x"), RefusedError("x"), ConfigurationError("x"), RetryableError("x"))
    assert [choose_status(error) for error in errors] == [404, 422, 503, 503]
