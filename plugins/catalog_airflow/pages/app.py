"""Create the application that Airflow's API server mounts. All routes check the login, and all errors become pages."""

from fastapi import Depends, FastAPI, HTTPException, Request

from catalog_airflow.pages import corrections, images, map_page, models, review, runs, search, templating
from catalog_airflow.pages.access import BodyLimit, identify_viewer, require_same_origin
from catalog_airflow.pages.errors import handle_errors


def create_pages_app() -> FastAPI:
    """Create the application with its routes and error pages."""
    app = FastAPI(
        title="Catalog tagger",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        # Applies to all routes, including those added later.
        dependencies=[Depends(identify_viewer), Depends(require_same_origin), Depends(_refuse_nul)],
    )
    for module in (runs, images, search, map_page, corrections, review, models, templating):
        app.include_router(module.router)
    # The last route: an unknown address, too, is a page with navigation, after the login.
    app.get("/{path:path}")(_refuse_unknown)
    app.add_middleware(BodyLimit)
    handle_errors(app)
    return app


def _refuse_unknown() -> None:
    raise HTTPException(404, "There is no such page.")


def _refuse_nul(request: Request) -> None:
    """Respond 422 to queries with NUL characters, which Postgres does not accept in text."""
    if any("\0" in value for value in request.query_params.values()):
        raise HTTPException(422, "The address contains a NUL character.")
