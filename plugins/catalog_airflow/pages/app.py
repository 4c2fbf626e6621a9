"""The application that Airflow's API server mounts: every route knows who asks, every fault becomes a page."""

import logging
from http import HTTPStatus

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse
from starlette.exceptions import HTTPException as AnyHTTPException

from catalog_airflow.pages import (
    decisions,
    evaluations,
    models,
    overview,
    photos,
    review,
    runs,
    search,
    templating,
    thumbnails,
)
from catalog_airflow.pages.access import identify_viewer, require_same_origin
from catalog_airflow.pages.body_limit import BodyLimit
from catalog_airflow.pages.templating import render_page
from jobs.database.image_grid import BadCursorError
from jobs.errors import PermanentError, RetryableError

log = logging.getLogger(__name__)

NEXT_STEP = {
    401: "Log in to Airflow, then load this page again.",
    403: "Ask the administrator of this Airflow for the right.",
    409: "Go back and load the page again: something else holds now.",
    404: "Go to the overview, or search for it.",
    422: "Go back and correct what you entered.",
}


def create_pages_app() -> FastAPI:
    """Routes, and what becomes of their faults."""
    app = FastAPI(
        title="Catalog tagger",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        # For all routes, those that somebody adds included.
        dependencies=[Depends(identify_viewer), Depends(require_same_origin), Depends(_refuse_nul)],
    )
    for part in (
        overview,
        runs,
        photos,
        search,
        review,
        models,
        decisions,
        evaluations,
        thumbnails,
        templating,
    ):
        app.include_router(part.router)
    app.add_middleware(BodyLimit)
    app.add_exception_handler(AnyHTTPException, _explain_refusal)
    app.add_exception_handler(RequestValidationError, _explain_wrong_request)
    app.add_exception_handler(BadCursorError, _explain_wrong_request)
    app.add_exception_handler(PermanentError, _explain_fault)
    app.add_exception_handler(RetryableError, _explain_fault)
    app.add_exception_handler(Exception, _explain_error)
    return app


def _refuse_nul(request: Request) -> None:
    """No text of Postgres holds a NUL, so that nothing can be found by one."""
    if any("\0" in value for value in request.query_params.values()):
        raise HTTPException(422, "The address holds a character that is in no text.")


def _explain_refusal(_: Request, error: Exception) -> HTMLResponse:
    assert isinstance(error, AnyHTTPException | HTTPException)
    page = _render_fault(error.status_code, str(error.detail), NEXT_STEP.get(error.status_code, ""))
    page.headers.update(error.headers or {})
    return page


def _explain_wrong_request(_: Request, error: Exception) -> HTMLResponse:
    if isinstance(error, RequestValidationError):
        faults = (f"{fault['loc'][-1]}: {fault['msg']}" for fault in error.errors())
        return _render_fault(422, "; ".join(faults), NEXT_STEP[422])
    return _render_fault(422, str(error), NEXT_STEP[422])


def _explain_fault(_: Request, error: Exception) -> HTMLResponse:
    log.warning("the catalog cannot answer: %s", error)
    hint = "Load this page again in a minute." if isinstance(error, RetryableError) else ""
    return _render_fault(503, str(error), hint)


def _explain_error(request: Request, _: Exception) -> HTMLResponse:
    # Starlette raises it again behind this answer, and the server's log has it whole.
    return _render_fault(
        500, "Something went wrong on our side.", f"The log of Airflow's API server says what, at {request.url.path}."
    )


def _render_fault(status_code: int, message: str, hint: str) -> HTMLResponse:
    return render_page(
        "fault.html",
        None,
        status_code=status_code,
        title=HTTPStatus(status_code).phrase,
        message=message,
        hint=hint,
    )
