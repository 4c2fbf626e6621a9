"""Show the overview and the pages of runs: results, timings, live progress, and images that failed."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Annotated, Literal

from fastapi import APIRouter, Form, Query
from fastapi.responses import HTMLResponse, RedirectResponse
from pydantic import Field

from catalog_airflow.pages.access import AnyViewer, Reviewer
from catalog_airflow.pages.catalog_access import change_catalog, read_catalog, read_queue
from catalog_airflow.pages.templating import make_url, render_page
from jobs.charts import Chart, Series, Unit, draw_lines, draw_stacked_bars
from jobs.database.images import count_roughly
from jobs.database.item_failures import count_failures, ignore_failures, read_failure_page, retry_failures
from jobs.database.job_progress import list_running_jobs
from jobs.database.promotions import list_champions
from jobs.database.run_history import RunSummary, list_runs, read_run_details
from jobs.database.tables import images, products
from jobs.review.queue import MAX_COUNTED, read_backlog

RUNS_SHOWN = 20
FAILURES_SHOWN = 60
MAX_CATEGORIES = 8
"""Maximum number of categories with their own color. The others share one."""
OTHERS = "others"

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
        runs = list_runs(connection, RUNS_SHOWN)
        jobs = list_running_jobs(connection)
        backlog = read_backlog(connection, read_queue(connection))
    return render_page(
        "overview.html",
        viewer,
        champions=champions,
        failures=failures,
        counts=counts,
        runs=runs,
        jobs=jobs,
        run_id=None,
        backlog=backlog,
        max_counted=MAX_COUNTED,
        charts=draw_runs(runs),
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
    if details is None:
        status_code = 200 if jobs else 404
        return render_page("no_run.html", viewer, status_code=status_code, run_id=run, jobs=jobs)
    stages = {
        "read": details.summary.read_seconds,
        "decode": details.summary.decode_seconds,
        "predict": details.summary.predict_seconds,
        "write": details.summary.write_seconds,
    }
    return render_page("run.html", viewer, run=details, run_id=run, jobs=jobs, stages=stages)


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


def draw_runs(runs: Sequence[RunSummary]) -> list[Chart]:
    """Draw charts of the runs, oldest on the left. Each chart leaves out runs that have no data for it."""
    charts = [
        _draw_bars("Images per run", runs, ["tagged", "reused", "failed"], vars),
        draw_lines(
            "Images per second",
            [run.run_id for run in reversed(runs)],
            [Series("speed", [run.images_per_second if run.tagged else None for run in reversed(runs)])],
        ),
    ]
    if tagged := [run for run in runs if run.category_counts]:
        charts += [_draw_categories(tagged), _draw_confidence(tagged)]
    if waited := [run for run in runs if sum(run.waiting_seconds.values()) > 0]:
        stages = ["bucket", "decode", "forward", "database"]
        charts.append(
            _draw_bars("Waiting time by stage", waited, stages, lambda run: _divide(run.waiting_seconds), "share")
        )
    return charts


def _draw_bars(
    title: str,
    runs: Sequence[RunSummary],
    names: Sequence[str],
    read: Callable[[RunSummary], dict[str, float]],
    unit: Unit = "number",
) -> Chart:
    values = [read(run) for run in reversed(runs)]
    series = [Series(name, [one.get(name, 0) for one in values]) for name in names]
    return draw_stacked_bars(
        title, [run.run_id for run in reversed(runs)], series, unit, highest=1.0 if unit == "share" else None
    )


def _draw_categories(runs: Sequence[RunSummary]) -> Chart:
    totals: Counter[str] = Counter()
    for run in runs:
        totals.update(run.category_counts)
    common = [name for name, _ in totals.most_common(MAX_CATEGORIES)]

    def read(run: RunSummary) -> dict[str, float]:
        shares = _divide(run.category_counts)
        return shares | {OTHERS: sum(share for name, share in shares.items() if name not in common)}

    names = [*common, OTHERS] if len(totals) > len(common) else common
    return _draw_bars("Categories of newly tagged images", runs, names, read, "share")


def _draw_confidence(runs: Sequence[RunSummary]) -> Chart:
    """Draw the mean confidence of each run, estimated from the centers of its ten bins."""
    means = []
    for run in reversed(runs):
        images = sum(run.confidence_counts)
        weighted = sum((0.1 * number + 0.05) * count for number, count in enumerate(run.confidence_counts))
        means.append(weighted / images if images else None)
    title, places = "Mean confidence of newly tagged images", [run.run_id for run in reversed(runs)]
    return draw_lines(title, places, [Series("confidence", means)], "share", highest=1.0)


def _divide(amounts: dict[str, int] | dict[str, float]) -> dict[str, float]:
    """Turn amounts into shares of their sum."""
    total = sum(amounts.values())
    return {name: amount / total for name, amount in amounts.items()} if total else {}
