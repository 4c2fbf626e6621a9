"""The first page: how the catalog is doing."""

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, RedirectResponse

from catalog_airflow.pages import charts
from catalog_airflow.pages.access import AnyViewer
from catalog_airflow.pages.catalog_access import read_catalog, read_drift_settings
from catalog_airflow.pages.templating import make_url, render_page
from jobs.database.images import count_roughly
from jobs.database.item_failures import count_failures
from jobs.database.job_progress import list_running_jobs
from jobs.database.promotions import list_champions
from jobs.database.run_history import list_runs
from jobs.database.tables import images, products
from jobs.review.queue import MAX_COUNTED, find_review_queue, read_backlog

RUNS_SHOWN = 20

router = APIRouter()


@router.get("/")
def open_first_page() -> RedirectResponse:
    """Whoever asks for the pages as such gets the overview."""
    return RedirectResponse(make_url("overview"), 303)


@router.get("/overview")
def show_overview(viewer: AnyViewer) -> HTMLResponse:
    """Champions, runs, failures and drift."""
    with read_catalog() as connection:
        champions, failures = list_champions(connection), count_failures(connection)
        counts = {"images": count_roughly(connection, images), "products": count_roughly(connection, products)}
        runs = list_runs(connection, RUNS_SHOWN)
        jobs = list_running_jobs(connection)
        backlog = read_backlog(connection, find_review_queue(connection, read_drift_settings()))
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
        # A run that had nothing to do says nothing of speed or classes.
        entries=charts.draw_entries(runs),
        speed=charts.draw_speed(runs),
        waiting=charts.draw_waiting([run for run in runs if run.waiting_seconds]),
        class_mix=charts.draw_class_mix([run for run in runs if run.category_counts]),
        confidence=charts.draw_confidence([run for run in runs if run.category_counts]),
        drifted=[run for run in runs if run.has_drifted],
        chart=(charts.WIDTH, charts.HEIGHT),
    )
