"""Pages about runs: results, timings, live progress, and photos that failed."""

from typing import Annotated, Literal

from fastapi import APIRouter, Form, Query
from fastapi.responses import HTMLResponse, RedirectResponse
from pydantic import Field

from catalog_airflow.pages import charts
from catalog_airflow.pages.access import AnyViewer, Reviewer
from catalog_airflow.pages.catalog_access import change_catalog, read_catalog
from catalog_airflow.pages.templating import make_url, render_page
from jobs.database.item_failures import count_failures, ignore_failures, read_failure_page, retry_failures
from jobs.database.job_progress import list_running_jobs
from jobs.database.run_history import read_run_details

router = APIRouter()


RunId = Annotated[str, Query(min_length=1, max_length=500)]


@router.get("/progress")
def show_progress(viewer: AnyViewer, run: RunId | None = None) -> HTMLResponse:
    """The running jobs of a run, or of all, as a part of a page, which loads it again every few seconds."""
    with read_catalog() as connection:
        jobs = list_running_jobs(connection, run)
    return render_page("progress.html", viewer, jobs=jobs, run_id=run)


@router.get("/run")
def show_run(viewer: AnyViewer, run: RunId) -> HTMLResponse:
    """The run of a DAG, by the id that its tasks give to jobs: the DAG's, a slash, and the DAG run's."""
    with read_catalog() as connection:
        details, jobs = read_run_details(connection, run), list_running_jobs(connection, run)
    if details is None:
        status_code = 200 if jobs else 404
        return render_page("no_run.html", viewer, status_code=status_code, run_id=run, jobs=jobs)
    stages = {
        "read": details.summary.read_seconds,
        "decode": details.summary.decode_seconds,
        "predict": details.summary.predict_seconds,
        "write": details.summary.write_seconds,
    }
    return render_page(
        "run.html",
        viewer,
        run=details,
        run_id=run,
        jobs=jobs,
        stages=stages,
        class_mix=charts.draw_class_mix([details.summary]) if details.summary.category_counts else None,
    )


PAGE_SIZE = 60


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
        reasons = count_failures(connection)
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


@router.post("/failures")
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
