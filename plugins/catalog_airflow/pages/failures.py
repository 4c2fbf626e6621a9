"""Photos that could not be tagged, and why."""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Form, Query
from fastapi.responses import HTMLResponse, RedirectResponse
from pydantic import Field

from catalog_airflow.pages.access import AnyViewer, Reviewer
from catalog_airflow.pages.catalog_access import change_catalog, read_catalog
from catalog_airflow.pages.forgery import require_token
from catalog_airflow.pages.templating import make_url, render_page
from jobs.browsing.failure_list import read_failure_page
from jobs.browsing.overview import read_overview
from jobs.database.failure_decisions import ignore_failures, retry_failures

PAGE_SIZE = 60

router = APIRouter()

ImageId = Annotated[int, Field(ge=1, lt=2**63)]


@router.get("/failures")
def show_failures(
    viewer: AnyViewer,
    reason: Annotated[str, Query(max_length=100)] = "",
    after: Annotated[int | None, Query(ge=0, lt=2**63)] = None,
    ignored: bool = False,
) -> HTMLResponse:
    """Failures that nobody and nothing has mended yet, or those that somebody ignores."""
    with read_catalog() as connection:
        page = read_failure_page(connection, reason or None, after, PAGE_SIZE, ignored=ignored)
        reasons = read_overview(connection).failures
    return render_page(
        "failures.html",
        viewer,
        failures=page.failures,
        reasons=reasons,
        reason=reason,
        ignored=ignored,
        next_url=make_url("failures", reason=reason, ignored=ignored, after=page.next_after)
        if page.next_after
        else None,
    )


@router.post("/failures", dependencies=[Depends(require_token)])
def decide_failures(
    viewer: Reviewer,
    image: Annotated[list[ImageId], Form(min_length=1, max_length=PAGE_SIZE)],
    decision: Annotated[Literal["retry", "ignore"], Form()],
    ignored: Annotated[bool, Form()] = False,
) -> RedirectResponse:
    """Have the next run ask these photos again, or let them be."""
    decide = retry_failures if decision == "retry" else ignore_failures
    with change_catalog() as connection:
        decide(connection, image, viewer.name)
    return RedirectResponse(make_url("failures", ignored=ignored), 303)
