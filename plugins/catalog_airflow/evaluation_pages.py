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


def _read_page(kind: str, run: str) -> HTMLResponse:
    # Jobs are imported when somebody looks, not when Airflow starts.
    from jobs.errors import PermanentError, RetryableError
    from jobs.settings import load_settings
    from jobs.storage.layout import evaluation_location
    from jobs.storage.object_store import ObjectStore
    from jobs.storage.uri import S3Uri

    try:
        settings = load_settings()
        page = evaluation_location(S3Uri.parse(settings.artifacts_uri).as_folder(), run, kind) / "page.html"
        content = ObjectStore(settings.s3_endpoint_url).read_if_present(page)
    except (PermanentError, RetryableError) as error:
        return HTMLResponse(_explain(str(error)), status_code=503)
    if content is None:
        return HTMLResponse(_explain("This run has no such evaluation yet."), status_code=404)
    return HTMLResponse(content, headers={"Content-Security-Policy": NOTHING_FROM_ELSEWHERE})


def _explain(message: str) -> str:
    return f"<!doctype html><title>Catalog tagger</title><p>{escape(message)}</p>"
