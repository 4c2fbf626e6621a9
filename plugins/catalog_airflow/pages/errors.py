"""Turn errors into pages: with navigation for a known viewer, a next step, and a way back to a list."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse, Response
from starlette.exceptions import HTTPException as AnyHTTPException

from catalog_airflow.page_links import locate_airflow, locate_pages
from catalog_airflow.pages.templating import render_page
from jobs.database.image_filters import BadCursorError
from jobs.errors import JobError, NotFoundError, PermanentError, RefusedError, RetryableError

log = logging.getLogger(__name__)

TITLES = {
    400: "Check your input",
    401: "Log in",
    403: "Not allowed",
    404: "Not found",
    408: "Too slow",
    409: "This has changed",
    413: "Too large",
    422: "Check your input",
    500: "Server error",
    503: "Not available right now",
}
"""The heading by status code, for the codes that the pages respond with."""
NEXT_STEP = {
    401: "Log in to Airflow, then reload this page.",
    403: "Ask the administrator of this Airflow for the right.",
    409: "Go back and reload the page: the data has changed.",
    422: "Go back and correct your input.",
    503: "Reload this page in a minute.",
}


@dataclass(frozen=True)
class ListPage:
    """The page that lists what other pages show, and the text of the link to it."""

    page: str
    title: str


OVERVIEW = ListPage("overview", "Go to the overview")
IMAGES = ListPage("images", "Browse images")
MODELS = ListPage("models", "View all models")
LISTS = {
    "images": IMAGES,
    "product": IMAGES,
    "corrections": IMAGES,
    "models": MODELS,
    "evaluations": MODELS,
    "failures": ListPage("failures", "View failures"),
    "review": ListPage("review", "Go to the review"),
    "search": ListPage("search", "Go to the search"),
}
"""The list of each page, by the first part of its path."""

FIELDS = {
    "accepted": "Image",
    "after": "Page",
    "answer": "Category",
    "area": "Selection on the map",
    "address": "Page to return to",
    "category": "Category",
    "decision": "Action",
    "id": "Product",
    "image": "Image",
    "image_id": "Image",
    "kind": "Kind of model",
    "like": "Similar to product",
    "max_confidence": "Confidence to",
    "min_confidence": "Confidence from",
    "only": "Reason",
    "q": "Text",
    "reason": "Reason",
    "review_id": "Answer",
    "page": "Page",
    "run": "Run",
    "skip": "Skipped images",
    "sort": "Sort",
    "text": "Text or product id",
    "version": "Model version",
}
"""The label of each parameter, as the pages show it."""
NEEDED = {
    "min_confidence": "enter a number from 0 to 100",
    "max_confidence": "enter a number from 0 to 100",
    "version": "enter the number of a version",
    ("corrections", "image"): "select at least one image",
    ("failures", "image"): "select at least one image",
    ("review", "accepted"): "select at least one image",
}
"""What to enter, for parameters whose messages would otherwise give only half of it."""
NEEDED_BY_TYPE = {
    "missing": "enter a value",
    "string_too_short": "enter a value",
    "too_short": "choose at least one",
    "string_too_long": "enter at most {max_length} characters",
    "too_long": "choose at most {max_length}",
    "int_parsing": "enter a whole number",
    "int_parsing_size": "enter a smaller number",
    "float_parsing": "enter a number",
    "bool_parsing": "choose yes or no",
    "greater_than_equal": "enter a number of at least {ge}",
    "less_than_equal": "enter a number of at most {le}",
    "less_than": "enter a number below {lt}",
    "literal_error": "choose {expected}",
}
"""What to enter, by the type of Pydantic's error."""


def handle_errors(app: FastAPI) -> None:
    """Register a page for every kind of error."""
    app.add_exception_handler(AnyHTTPException, _explain_refusal)
    app.add_exception_handler(RequestValidationError, _explain_wrong_request)
    app.add_exception_handler(BadCursorError, _explain_wrong_request)
    app.add_exception_handler(PermanentError, _explain_job_error)
    app.add_exception_handler(RetryableError, _explain_job_error)
    app.add_exception_handler(Exception, _explain_crash)


def _explain_refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, AnyHTTPException | HTTPException)
    # Airflow's UI, too, asks for the login if the token is invalid, for example after the server's secret changed.
    needs_login = error.status_code == 401 or error.detail == "Invalid JWT token"
    destination = request.headers.get("sec-fetch-dest", "document")
    is_page = request.method == "GET" and "text/html" in request.headers.get("accept", "")
    if needs_login and is_page and destination == "document":
        return RedirectResponse(_locate_login(request), 303, headers={"Cache-Control": "no-store"})
    hint = NEXT_STEP[401] if needs_login else NEXT_STEP.get(error.status_code, "")
    page = _render_error(
        request,
        error.status_code,
        "Your login has expired." if needs_login and is_page else str(error.detail),
        hint,
        # A login page of another site does not work in a frame. Reloading the window around it shows Airflow's own.
        needs_login=needs_login and is_page,
    )
    page.headers.update(error.headers or {})
    return page


def _locate_login(request: Request) -> str:
    """Return the address at which Airflow redirects to the login of its auth manager, and from there back."""
    target = f"{locate_pages()}{_read_path(request)}" + (f"?{request.url.query}" if request.url.query else "")
    return f"{locate_airflow()}/api/v2/auth/login?{urlencode({'next': target})}"


def _explain_wrong_request(request: Request, error: Exception) -> Response:
    if isinstance(error, RequestValidationError):
        page = _read_page(request)
        problems = dict.fromkeys(_describe_problem(page, problem) for problem in error.errors())
        return _render_error(request, 422, ". ".join(problems) + ".", NEXT_STEP[422])
    return _render_error(request, 422, str(error), NEXT_STEP[422])


def _describe_problem(page: str, problem: Mapping[str, Any]) -> str:
    """Name the field as the user sees it, and say what to enter."""
    name = next((str(part) for part in reversed(problem["loc"]) if isinstance(part, str)), "")
    label = FIELDS.get(name, name.replace("_", " ").capitalize())
    need = NEEDED.get((page, name)) or NEEDED.get(name)
    if need is None and problem["type"] in NEEDED_BY_TYPE:
        need = NEEDED_BY_TYPE[problem["type"]].format(**problem.get("ctx", {}))
    return f"{label}: {need or problem['msg']}"


def _explain_job_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, JobError)
    status_code = choose_status(error)
    if status_code == 503:
        log.warning("cannot show a page: %s", error)
    # Reloading helps only against a temporary problem.
    hint = "" if status_code == 503 and isinstance(error, PermanentError) else NEXT_STEP.get(status_code, "")
    return _render_error(request, status_code, str(error), hint)


def choose_status(error: JobError) -> int:
    """Return the HTTP status for an error of a job."""
    return 404 if isinstance(error, NotFoundError) else 422 if isinstance(error, RefusedError) else 503


def _explain_crash(request: Request, _: Exception) -> Response:
    # Starlette raises the error again after this response, so the server logs its traceback.
    hint = f"See the log of Airflow's API server, at {request.url.path}."
    return _render_error(request, 500, "Something went wrong on the server.", hint)


def _read_path(request: Request) -> str:
    """Return the path below the prefix of the pages, with a slash at its start."""
    path: str = request.scope["path"]
    return path.removeprefix(request.scope.get("root_path", ""))


def _read_page(request: Request) -> str:
    """Return the first part of the path below the prefix of the pages."""
    return _read_path(request).strip("/").partition("/")[0]


def _render_error(
    request: Request, status_code: int, message: str, hint: str, *, needs_login: bool = False
) -> Response:
    return render_page(
        "error.html",
        # Set by the dependency that checks the login, unless it refused the request.
        getattr(request.state, "viewer", None),
        status_code=status_code,
        title=TITLES.get(status_code) or HTTPStatus(status_code).phrase,
        message=message,
        hint=hint,
        list=LISTS.get(_read_page(request), OVERVIEW),
        needs_login=needs_login,
    )
