"""The pages that `evaluate` and `gate` wrote of candidates, as they lie in the bucket."""

from typing import Annotated, Literal

from fastapi import APIRouter, HTTPException, Query
from fastapi.responses import HTMLResponse

from catalog_airflow.pages.catalog_access import open_catalog, read_catalog
from jobs.database.evaluations import read_latest_evaluation
from jobs.evaluation.evaluation_files import PAGE_FILE
from jobs.storage.uri import S3Uri

NOTHING_FROM_ELSEWHERE = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

router = APIRouter()


@router.get("/evaluations/{kind}")
def show_evaluation(
    kind: Literal["classifier", "encoder"], run: Annotated[str, Query(min_length=1, max_length=500)]
) -> HTMLResponse:
    """The page of the candidate of a run."""
    with read_catalog() as connection:
        evaluation = read_latest_evaluation(connection, run, kind)
    content = None
    if evaluation:
        content = open_catalog().store.read_if_present(S3Uri.parse(evaluation.artifact_uri) / PAGE_FILE)
    if content is None:
        raise HTTPException(404, "This run has no such evaluation yet.")
    headers = {"Content-Security-Policy": NOTHING_FROM_ELSEWHERE, "X-Content-Type-Options": "nosniff"}
    return HTMLResponse(content, headers=headers)
