"""Show the overview and the pages of runs: results, timings, live progress, and images that failed."""

from collections.abc import Sequence
from typing import Annotated, Literal

from fastapi import APIRouter, Form, Query
from fastapi.responses import HTMLResponse, RedirectResponse
from pydantic import Field

from catalog_airflow.pages.access import AnyViewer, Reviewer
from catalog_airflow.pages.catalog_access import change_catalog, read_catalog, read_queue
from catalog_airflow.pages.recall_charts import draw_recall
from catalog_airflow.pages.run_charts import draw_runs
from catalog_airflow.pages.templating import make_url, render_page
from jobs.charts import choose_colors
from jobs.database.evaluations import list_run_evaluations
from jobs.database.images import count_roughly
from jobs.database.item_failures import count_failures, ignore_failures, read_failure_page, retry_failures
from jobs.database.job_progress import list_running_jobs
from jobs.database.products import list_categories
from jobs.database.promotions import list_champions
from jobs.database.recall_checks import list_checks
from jobs.database.run_history import RunSummary, list_runs, read_run_details
from jobs.database.tables import images, products
from jobs.review.queue import MAX_COUNTED, count_waiting, read_backlog
from jobs.run_titles import title_run

RUNS_READ, ROWS_SHOWN = 100, 20
"""Number of runs to read, and of rows on the overview. Runs that had nothing to do share a row."""
FAILURES_SHOWN = 60
CHECKS_SHOWN = 60
"""Number of recall checks on the charts."""

router = APIRouter()

RunId = Annotated[str, Query(min_length=1, max_length=500)]
ImageId = Annotated[int, Field(ge=1, lt=2**63)]


@router.get("/")
def redirect_to_overview() -> RedirectResponse:
    """Redirect the bare address of the pages."""
    return RedirectResponse(make_url("overview"), 303)


@router.get("/overview")
def show_overview(viewer: AnyViewer) -> HTMLResponse:
    """Show champions, runs, failures and drift."""
    with read_catalog() as connection:
        champions, failures = list_champions(connection), count_failures(connection)
        counts = {"images": count_roughly(connection, images), "products": count_roughly(connection, products)}
        runs, categories = list_runs(connection, RUNS_READ), list_categories(connection)
        jobs = list_running_jobs(connection)
        checks = list_checks(connection, CHECKS_SHOWN)
        queue = read_queue(connection)
        backlog = read_backlog(connection, queue)
    return render_page(
        "overview.html",
        viewer,
        champions=champions,
        failures=failures,
        counts=counts,
        rows=fold_idle(runs),
        jobs=jobs,
        run_id=None,
        backlog=backlog,
        waiting=count_waiting(queue, backlog, None),
        max_counted=MAX_COUNTED,
        charts=[*draw_runs(runs, categories), *draw_recall(checks)],
        below=[one for one in checks if one.checked_at == checks[-1].checked_at and one.check.is_below],
        drifted=[run for run in runs if run.has_drifted],
    )


@router.get("/progress")
def show_progress(viewer: AnyViewer, run: RunId | None = None) -> HTMLResponse:
    """Show the running jobs of one run or of all runs, as a fragment that pages reload every few seconds."""
    with read_catalog() as connection:
        jobs = list_running_jobs(connection, run)
    return render_page("progress.html", viewer, jobs=jobs, run_id=run)


@router.get("/run")
def show_run(viewer: AnyViewer, run: RunId) -> HTMLResponse:
    """Show a run by the id that its tasks pass to jobs: ``<dag_id>/<dag_run_id>``."""
    with read_catalog() as connection:
        details, jobs = read_run_details(connection, run), list_running_jobs(connection, run)
        evaluations, categories = list_run_evaluations(connection, run), list_categories(connection)
    if details is None:
        return render_page(
            "no_run.html",
            viewer,
            status_code=200 if jobs or evaluations else 404,
            title=title_run(run),
            run_id=run,
            jobs=jobs,
            evaluations=evaluations,
        )
    stages = {
        "read": details.summary.read_seconds,
        "decode": details.summary.decode_seconds,
        "predict": details.summary.predict_seconds,
        "write": details.summary.write_seconds,
    }
    colors = choose_colors(categories)
    return render_page("run.html", viewer, run=details, run_id=run, jobs=jobs, stages=stages, colors=colors)


@router.get("/failures")
def show_failures(
    viewer: AnyViewer,
    reason: Annotated[str, Query(max_length=100)] = "",
    after: Annotated[int | None, Query(ge=0, lt=2**63)] = None,
    ignored: bool = False,
) -> HTMLResponse:
    """Show open failures, or ignored ones."""
    with read_catalog() as connection:
        page = read_failure_page(connection, reason or None, after, FAILURES_SHOWN, ignored=ignored)
        reasons = count_failures(connection)
    next_url = make_url("failures", reason=reason, ignored=ignored, after=page.next_after) if page.next_after else None
    return render_page(
        "failures.html",
        viewer,
        failures=page.failures,
        reasons=reasons,
        reason=reason,
        ignored=ignored,
        next_url=next_url,
    )


@router.post("/failures")
def decide_failures(
    viewer: Reviewer,
    image: Annotated[list[ImageId], Form(min_length=1, max_length=FAILURES_SHOWN)],
    decision: Annotated[Literal["retry", "ignore"], Form()],
    ignored: Annotated[bool, Form()] = False,
) -> RedirectResponse:
    """Retry the images in the next run, or ignore them."""
    decide = retry_failures if decision == "retry" else ignore_failures
    with change_catalog() as connection:
        decide(connection, image, viewer.name)
    return RedirectResponse(make_url("failures", ignored=ignored), 303)


def fold_idle(runs: Sequence[RunSummary]) -> list[tuple[RunSummary, ...]]:
    """Group runs that had nothing to do and follow one another. Each other run is alone in its group."""
    groups: list[tuple[RunSummary, ...]] = []
    for run in runs:
        if run.is_idle and groups and groups[-1][0].is_idle:
            groups[-1] += (run,)
        else:
            groups.append((run,))
    return groups[:ROWS_SHOWN]
