"""The benchmark of the pages requests all of them, and each filter of the grid."""

from urllib.parse import parse_qs, urlsplit

from sqlalchemy import Engine
from starlette.routing import Match

from benchmarks.search.generated_catalog import load_catalog, make_catalog
from benchmarks.serving.page_paths import list_grids, list_pages
from benchmarks.serving.used_catalog import simulate_use

IMAGES = 3_000
NOT_LISTED = {
    "/",
    "/map/image/{image_id}",
    "/evaluations/{kind}",
    "/thumbnails/{image_id}",
    "/zoom/{image_id}",
    "/static/{name}",
    "/{path:path}",
}
"""Redirects, static files, and what is read from the bucket."""


def test_every_page_and_every_filter_is_requested(engine: Engine) -> None:
    from catalog_airflow.pages.app import create_pages_app
    from catalog_airflow.pages.image_query import GridQuery
    from fastapi.routing import APIRoute

    catalog = make_catalog(IMAGES)
    load_catalog(engine, catalog)
    simulate_use(engine, catalog)
    paths = [one.path for one in (*list_pages(engine, IMAGES), *list_grids(engine, IMAGES))]

    routes = [route for route in create_pages_app().routes if isinstance(route, APIRoute) and "GET" in route.methods]
    for route in routes:
        requested = [path for path in paths if _leads_to(route, path)]
        assert requested or route.path in NOT_LISTED, route.path
    grid = [set(parse_qs(urlsplit(path).query)) for path in paths if path.startswith("images?")]
    assert set().union(*grid) == set(GridQuery.model_fields)
    assert {"category", "max_confidence", "disagree", "run", "version", "deleted", "text", "sort", "after"} in grid


def _leads_to(route: object, path: str) -> bool:
    scope = {"type": "http", "method": "GET", "path": f"/{urlsplit(path).path}", "headers": []}
    return route.matches(scope)[0] is Match.FULL  # type: ignore[attr-defined]
