"""Create the application that Airflow's API server mounts. All routes check the login, and all errors become pages."""

import logging
from http import HTTPStatus

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse
from starlette.exceptions import HTTPException as AnyHTTPException

from catalog_airflow.pages import images, map_page, models, review, runs, search, templating
from catalog_airflow.pages.access import BodyLimit, identify_viewer, require_same_origin
from catalog_airflow.pages.templating import render_page
from jobs.database.image_grid import BadCursorError
from jobs.errors import PermanentError, RetryableError

log = logging.getLogger(__name__)

NEXT_STEP = {
    401: "Log in to Airflow, then reload this page.",
    403: "Ask the administrator of this Airflow for the right.",
    409: "Go back and reload the page: the data has changed.",
    404: "Go to the overview, or search for it.",
    422: "Go back and correct your input.",
}


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
    for module in (runs, images, search, map_page, review, models, templating):
        app.include_router(module.router)
    app.add_middleware(BodyLimit)
    app.add_exception_handler(AnyHTTPException, _explain_refusal)
    app.add_exception_handler(RequestValidationError, _explain_wrong_request)
    app.add_exception_handler(BadCursorError, _explain_wrong_request)
    app.add_exception_handler(PermanentError, _explain_job_error)
    app.add_exception_handler(RetryableError, _explain_job_error)
    app.add_exception_handler(Exception, _explain_crash)
    return app


def _refuse_nul(request: Request) -> None:
    """Respond 422 to queries with NUL characters, which Postgres does not accept in text."""
    if any("\0" in value for value in request.query_params.values()):
        raise HTTPException(422, "The address contains a NUL character.")


def _explain_refusal(_: Request, error: Exception) -> HTMLResponse:
    assert isinstance(error, AnyHTTPException | HTTPException)
    page = _render_error(error.status_code, str(error.detail), NEXT_STEP.get(error.status_code, ""))
    page.headers.update(error.headers or {})
    return page


def _explain_wrong_request(_: Request, error: Exception) -> HTMLResponse:
    if isinstance(error, RequestValidationError):
        problems = (f"{problem['loc'][-1]}: {problem['msg']}" for problem in error.errors())
        return _render_error(422, "; ".join(problems), NEXT_STEP[422])
    return _render_error(422, str(error), NEXT_STEP[422])


def _explain_job_error(_: Request, error: Exception) -> HTMLResponse:
    log.warning("cannot show a page: %s", error)
    hint = "Reload this page in a minute." if isinstance(error, RetryableError) else ""
    return _render_error(503, str(error), hint)


def _explain_crash(request: Request, _: Exception) -> HTMLResponse:
    # Starlette raises the error again after this response, so the server logs its traceback.
    return _render_error(
        500, "Something went wrong on the server.", f"See the log of Airflow's API server, at {request.url.path}."
    )


def _render_error(status_code: int, message: str, hint: str) -> HTMLResponse:
    return render_page(
        "error.html",
        None,
        status_code=status_code,
        title=HTTPStatus(status_code).phrase,
        message=message,
        hint=hint,
    )
