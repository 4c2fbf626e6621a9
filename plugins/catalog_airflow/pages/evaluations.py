"""The pages that `evaluate` and `gate` wrote of candidates, as they lie in the bucket."""

import hashlib
from typing import Annotated, Literal

from fastapi import APIRouter, HTTPException, Query
from fastapi.responses import HTMLResponse

from catalog_airflow.pages.catalog_access import open_catalog, read_catalog
from catalog_airflow.pages.templating import HEADERS
from jobs.database.evaluations import read_latest_evaluation
from jobs.retrain.evaluate.evaluation_record import PAGE_FILE
from jobs.storage.locations import S3Uri

POLICY = "; ".join(
    (
        "default-src 'none'",
        "img-src data:",
        "style-src 'unsafe-inline'",
        "sandbox",
        "form-action 'none'",
        "frame-ancestors 'self'",
        "base-uri 'none'",
    )
)
"""It lies in a bucket: nothing on it may run, ask or lead anywhere else."""

router = APIRouter()


@router.get("/evaluations/{kind}")
def show_evaluation(
    kind: Literal["classifier", "encoder"], run: Annotated[str, Query(min_length=1, max_length=500)]
) -> HTMLResponse:
    """The page of the candidate of a run."""
    with read_catalog() as connection:
        evaluation = read_latest_evaluation(connection, run, kind)
    if evaluation is None or evaluation.page_sha256 is None:
        raise HTTPException(404, f"There is no evaluation page yet. Run `python -m jobs gate {kind} --run {run}`.")
    content = open_catalog().store.read_if_present(S3Uri.parse(evaluation.artifact_uri) / PAGE_FILE)
    if content is None:
        raise HTTPException(404, "The page of this evaluation is no longer in the bucket.")
    if hashlib.sha256(content).digest() != evaluation.page_sha256:
        raise HTTPException(409, "The page in the bucket differs from the page that the gates wrote.")
    return HTMLResponse(content, headers=HEADERS | {"Content-Security-Policy": POLICY})
