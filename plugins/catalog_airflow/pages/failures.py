"""Photos that could not be tagged, and why."""

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse

from catalog_airflow.pages.access import AnyViewer
from catalog_airflow.pages.catalog_access import read_catalog
from catalog_airflow.pages.templating import make_url, render_page
from jobs.browsing.failure_list import read_failure_page
from jobs.browsing.overview import read_overview

PAGE_SIZE = 60

router = APIRouter()


@router.get("/failures")
def show_failures(
    viewer: AnyViewer,
    reason: Annotated[str, Query(max_length=100)] = "",
    after: Annotated[int | None, Query(ge=0, lt=2**63)] = None,
) -> HTMLResponse:
    """Failures that nobody and nothing has mended yet."""
    with read_catalog() as connection:
        page = read_failure_page(connection, reason or None, after, PAGE_SIZE)
        reasons = read_overview(connection).failures
    return render_page(
        "failures.html",
        viewer,
        failures=page.failures,
        reasons=reasons,
        reason=reason,
        next_url=make_url("failures", reason=reason, after=page.next_after) if page.next_after else None,
    )
