"""List and compare model versions, promote and roll back, and show the pages of their evaluations."""

import hashlib
from typing import Annotated, Literal

from airflow.api.common.trigger_dag import trigger_dag
from airflow.exceptions import DagNotFound
from airflow.models import DagRun
from airflow.utils.types import DagRunTriggeredByType
from fastapi import APIRouter, Form, HTTPException, Path, Query
from fastapi.responses import HTMLResponse, RedirectResponse
from sqlalchemy import Connection

from catalog_airflow.defaults import DECISION_DAG
from catalog_airflow.pages.access import AnyViewer, Promoter
from catalog_airflow.pages.catalog_access import change_catalog, open_catalog, read_catalog
from catalog_airflow.pages.templating import HEADERS, make_url, render_page
from jobs.database.evaluations import read_gate_decisions, read_latest_evaluation
from jobs.database.model_coverage import preview_switch
from jobs.database.model_listing import ModelSummary, list_model_versions, show_model_version
from jobs.database.model_versions import MODEL_KINDS, ModelKind
from jobs.database.promotions import ChampionDecision, insert_decision, read_promotion_history
from jobs.errors import NotFoundError, RefusedError, RetryableError
from jobs.retag.rollback import choose_rollback
from jobs.retrain.comparison import Comparison, read_comparison, read_comparisons
from jobs.retrain.evaluate.evaluation_record import PAGE_FILE
from jobs.storage.locations import S3Uri

PROMOTIONS_SHOWN = 50
EVALUATION_POLICY = "; ".join(
    (
        "default-src 'none'",
        "img-src data:",
        "style-src 'unsafe-inline'",
        # Without allow-scripts, it can do nothing with its origin. Without an origin, browsers would send no login with
        # its link to the model if Airflow shows it in a frame.
        "sandbox allow-same-origin",
        "form-action 'none'",
        "frame-ancestors 'self'",
        "base-uri 'none'",
    )
)
"""Content-Security-Policy of pages from the bucket: no scripts, no forms, nothing loaded from elsewhere."""

router = APIRouter()

VersionId = Annotated[int, Path(ge=1, lt=2**31)]
RollbackReason = Annotated[str, Form(min_length=1, max_length=500)]


@router.get("/models")
def show_models(viewer: AnyViewer, decision: Annotated[str, Query(max_length=250)] = "") -> HTMLResponse:
    """Show all versions, the latest candidates compared with the champions, and the history of promotions.

    ``decision`` is the DAG run of a decision that was just made. The page reloads until that run ends.
    """
    with read_catalog() as connection:
        versions = list_model_versions(connection)
        comparisons = read_comparisons(connection)
        earlier = {kind: _find_earlier(connection, kind) for kind in MODEL_KINDS}
        history = read_promotion_history(connection, PROMOTIONS_SHOWN)
    return render_page(
        "models.html",
        viewer,
        versions=versions,
        comparisons=comparisons,
        earlier=earlier,
        history=history,
        decision=decision,
        decision_state=_read_run_state(decision) if decision else None,
        decision_dag=DECISION_DAG,
    )


@router.get("/models/{version}")
def show_model(viewer: AnyViewer, version: VersionId) -> HTMLResponse:
    """Show one version with its gates."""
    with read_catalog() as connection:
        try:
            model = show_model_version(connection, version)
        except NotFoundError:
            raise HTTPException(404, f"There is no model version {version}.") from None
        comparison = read_comparison(connection, version)
    return render_page("model.html", viewer, model=model, summary=model.summary, comparison=comparison)


@router.get("/models/{version}/promote")
def confirm_promotion(viewer: Promoter, version: VersionId) -> HTMLResponse:
    """Show what a promotion would change."""
    with read_catalog() as connection:
        comparison = _require_candidate(connection, version)
        preview = preview_switch(connection, comparison.evaluation.kind, version)
        gates = read_gate_decisions(connection, comparison.evaluation.evaluation_id)
    return render_page("decision.html", viewer, decision="promote", gates=gates, preview=preview)


@router.post("/models/{version}/promote")
def promote(viewer: Promoter, version: VersionId) -> RedirectResponse:
    """Start the promotion of a candidate. The job checks the gates again."""
    with read_catalog() as connection:
        evaluation = _require_candidate(connection, version).evaluation
    return _decide(ChampionDecision(evaluation.kind, evaluation.run_id, None, "passed its gates", viewer.name))


@router.get("/models/{version}/rollback")
def confirm_rollback(viewer: Promoter, version: VersionId) -> HTMLResponse:
    """Show what a rollback to a version would change."""
    with read_catalog() as connection:
        kind = _require_earlier(connection, version).kind
        preview = preview_switch(connection, kind, version)
    return render_page("decision.html", viewer, decision="rollback", gates=[], preview=preview)


@router.post("/models/{version}/rollback")
def roll_back(viewer: Promoter, version: VersionId, reason: RollbackReason) -> RedirectResponse:
    """Start the rollback to a version."""
    if "\0" in reason or not reason.strip():
        raise HTTPException(422, "Enter a reason.")
    with read_catalog() as connection:
        kind = _require_earlier(connection, version).kind
    return _decide(ChampionDecision(kind, None, version, reason.strip(), viewer.name))


@router.get("/evaluations/{kind}")
def show_evaluation(
    kind: Literal["classifier", "encoder"], run: Annotated[str, Query(min_length=1, max_length=500)]
) -> HTMLResponse:
    """Show the page that `gate` wrote about the candidate of a run, as stored in the bucket."""
    with read_catalog() as connection:
        evaluation = read_latest_evaluation(connection, run, kind)
    if evaluation is None or evaluation.page_sha256 is None:
        raise HTTPException(404, f"There is no evaluation page yet. Run `catalog gate {kind} --run {run}`.")
    content = open_catalog().store.read_if_present(S3Uri.parse(evaluation.artifact_uri) / PAGE_FILE)
    if content is None:
        raise HTTPException(404, "The page of this evaluation is no longer in the bucket.")
    if hashlib.sha256(content).digest() != evaluation.page_sha256:
        raise HTTPException(409, "The page in the bucket differs from the page that the gates wrote.")
    return HTMLResponse(content, headers=HEADERS | {"Content-Security-Policy": EVALUATION_POLICY})


def _find_earlier(connection: Connection, kind: ModelKind) -> int | None:
    """Return the version that a rollback restores, if there is one."""
    try:
        return choose_rollback(connection, kind)
    except (NotFoundError, RefusedError):
        return None


def _require_candidate(connection: Connection, version: int) -> Comparison:
    comparison = read_comparison(connection, version)
    if comparison is None:
        raise HTTPException(404, f"Model version {version} is not a candidate that was evaluated.")
    if comparison.is_champion:
        raise HTTPException(409, f"{comparison.evaluation.kind} {version} is already the champion.")
    if comparison.refusal:
        raise HTTPException(409, comparison.refusal)
    return comparison


def _require_earlier(connection: Connection, version: int) -> ModelSummary:
    try:
        summary = show_model_version(connection, version).summary
    except NotFoundError:
        raise HTTPException(404, f"There is no model version {version}.") from None
    if summary.is_champion:
        raise HTTPException(409, f"{summary.kind} {version} is already the champion.")
    try:
        choose_rollback(connection, summary.kind, version)
    except (NotFoundError, RefusedError) as error:
        raise HTTPException(409, str(error)) from None
    return summary


def _decide(decision: ChampionDecision) -> RedirectResponse:
    """Store a decision and start the DAG run that carries it out."""
    with change_catalog() as connection:
        # If the run cannot be started, the decision is rolled back. The job starts seconds later, after the commit.
        run_id = _start_run(insert_decision(connection, decision), decision.decided_by)
    return RedirectResponse(make_url("models", decision=run_id), 303)


def _start_run(decision_id: int, decided_by: str) -> str:
    try:
        run = trigger_dag(
            DECISION_DAG,
            triggered_by=DagRunTriggeredByType.UI,
            triggering_user_name=decided_by,
            conf={"decision": decision_id},
        )
    except DagNotFound:
        raise RetryableError(
            f"Airflow has not parsed the DAG {DECISION_DAG} yet: check that the dag processor is running"
        ) from None
    assert run is not None
    run_id: str = run.run_id
    return run_id


def _read_run_state(run_id: str) -> str | None:
    """Return ``queued``, ``running``, ``success`` or ``failed``, or None if there is no such run."""
    runs = DagRun.find(dag_id=DECISION_DAG, run_id=run_id)
    return str(runs[0].state) if runs else None
