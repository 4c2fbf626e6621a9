"""One run: what it did, where its time went, and some of its photos; and how far running jobs are."""

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse

from catalog_airflow.pages import charts
from catalog_airflow.pages.access import AnyViewer
from catalog_airflow.pages.catalog_access import read_catalog
from catalog_airflow.pages.templating import render_page
from jobs.browsing.run_history import read_run_details
from jobs.database.job_progress import list_running_jobs

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
