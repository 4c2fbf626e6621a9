"""The pages of candidates, served to whoever may see the DAG that made them."""

from html import escape
from typing import Annotated, Literal

from fastapi import Depends, FastAPI, Query
from fastapi.responses import HTMLResponse

DAG_ID = "model_retrain"
NOTHING_FROM_ELSEWHERE = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def create_pages_app() -> FastAPI:
    """The application that Airflow's API server mounts."""
    # Here, since Airflow reads plugins before its API can be imported.
    from airflow.api_fastapi.core_api.security import requires_access_dag

    app = FastAPI(title="Catalog tagger", docs_url=None, redoc_url=None, openapi_url=None)
    may_see = Depends(requires_access_dag("GET", param_dag_id=DAG_ID))

    @app.get("/evaluations/{kind}", dependencies=[may_see])
    def show_evaluation(
        kind: Literal["classifier", "encoder"], run: Annotated[str, Query(min_length=1)]
    ) -> HTMLResponse:
        return _read_page(kind, run)

    return app


def _read_page(kind: Literal["classifier", "encoder"], run: str) -> HTMLResponse:
    # Jobs are imported when somebody looks, not when Airflow starts.
    from jobs.connections import connect
    from jobs.database.evaluations import read_latest_evaluation
    from jobs.errors import PermanentError, RetryableError
    from jobs.evaluation.evaluation_files import PAGE_FILE
    from jobs.settings import load_settings
    from jobs.storage.uri import S3Uri

    content = None
    try:
        with connect(load_settings()) as connections:
            with connections.engine.connect() as connection:
                evaluation = read_latest_evaluation(connection, run, kind)
            if evaluation:
                content = connections.store.read_if_present(S3Uri.parse(evaluation.artifact_uri) / PAGE_FILE)
    except (PermanentError, RetryableError) as error:
        return HTMLResponse(_explain(str(error)), status_code=503)
    if content is None:
        return HTMLResponse(_explain("This run has no such evaluation yet."), status_code=404)
    return HTMLResponse(content, headers={"Content-Security-Policy": NOTHING_FROM_ELSEWHERE})


def _explain(message: str) -> str:
    return f"<!doctype html><title>Catalog tagger</title><p>{escape(message)}</p>"
