"""One run: what it did, where its time went, and some of its photos."""

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse

from catalog_airflow.pages import charts
from catalog_airflow.pages.access import AnyViewer
from catalog_airflow.pages.catalog_access import read_catalog
from catalog_airflow.pages.templating import render_page
from jobs.browsing.run_history import read_run_details

router = APIRouter()


@router.get("/run")
def show_run(viewer: AnyViewer, run: Annotated[str, Query(min_length=1, max_length=500)]) -> HTMLResponse:
    """The run of a DAG, by the id that its tasks give to jobs: the DAG's, a slash, and the DAG run's."""
    with read_catalog() as connection:
        details = read_run_details(connection, run)
    if details is None:
        return render_page("no_run.html", viewer, status_code=404, run_id=run)
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
        stages=stages,
        class_mix=charts.draw_class_mix([details.summary]) if details.summary.category_counts else None,
    )
