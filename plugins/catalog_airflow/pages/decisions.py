"""Promote and roll back: preview the effect, confirm, and start the DAG that carries the decision out."""

from typing import Annotated

from fastapi import APIRouter, Form, HTTPException
from fastapi.responses import HTMLResponse, RedirectResponse
from sqlalchemy import Connection

from catalog_airflow.pages.access import Promoter
from catalog_airflow.pages.catalog_access import change_catalog, read_catalog
from catalog_airflow.pages.models import VersionId, start_decision
from catalog_airflow.pages.templating import make_url, render_page
from jobs.database.evaluations import read_gate_decisions
from jobs.database.model_coverage import preview_switch
from jobs.database.model_listing import ModelSummary, show_model_version
from jobs.database.promotions import ChampionDecision, insert_decision
from jobs.errors import NotFoundError, RefusedError
from jobs.retag.rollback import choose_rollback
from jobs.retrain.comparison import Comparison, read_comparison

router = APIRouter()

Reason = Annotated[str, Form(min_length=1, max_length=500)]


@router.get("/models/{version}/promote")
def confirm_promotion(viewer: Promoter, version: VersionId) -> HTMLResponse:
    """What a promotion would change."""
    with read_catalog() as connection:
        comparison = _require_candidate(connection, version)
        preview = preview_switch(connection, comparison.evaluation.kind, version)
        gates = read_gate_decisions(connection, comparison.evaluation.evaluation_id)
    return render_page("decision.html", viewer, decision="promote", gates=gates, preview=preview)


@router.post("/models/{version}/promote")
def promote(viewer: Promoter, version: VersionId) -> RedirectResponse:
    """Have the candidate promoted; the job itself looks at the gates once more."""
    with read_catalog() as connection:
        evaluation = _require_candidate(connection, version).evaluation
    return _decide(ChampionDecision(evaluation.kind, evaluation.run_id, None, "passed its gates", viewer.name))


@router.get("/models/{version}/rollback")
def confirm_rollback(viewer: Promoter, version: VersionId) -> HTMLResponse:
    """What going back to a version would change."""
    with read_catalog() as connection:
        kind = _require_earlier(connection, version).kind
        preview = preview_switch(connection, kind, version)
    return render_page("decision.html", viewer, decision="rollback", gates=[], preview=preview)


@router.post("/models/{version}/rollback")
def roll_back(viewer: Promoter, version: VersionId, reason: Reason) -> RedirectResponse:
    """Have answers come from that version again."""
    if "\0" in reason or not reason.strip():
        raise HTTPException(422, "Say why, in words.")
    with read_catalog() as connection:
        kind = _require_earlier(connection, version).kind
    return _decide(ChampionDecision(kind, None, version, reason.strip(), viewer.name))


def _decide(decision: ChampionDecision) -> RedirectResponse:
    """Store the decision and start its run: the DAG carries out nothing else, whoever starts it."""
    with change_catalog() as connection:
        # In one transaction, which a run that cannot be started takes back; the job starts seconds later.
        run_id = start_decision(insert_decision(connection, decision), decision.decided_by)
    return RedirectResponse(make_url("models", decision=run_id), 303)


def _require_candidate(connection: Connection, version: int) -> Comparison:
    comparison = read_comparison(connection, version)
    if comparison is None:
        raise HTTPException(404, f"Model version {version} is no candidate that was evaluated.")
    if comparison.is_champion:
        raise HTTPException(409, f"{comparison.evaluation.kind} {version} is the champion already.")
    if comparison.refusal:
        raise HTTPException(409, comparison.refusal)
    return comparison


def _require_earlier(connection: Connection, version: int) -> ModelSummary:
    try:
        summary = show_model_version(connection, version).summary
    except NotFoundError:
        raise HTTPException(404, f"There is no model version {version}.") from None
    if summary.is_champion:
        raise HTTPException(409, f"{summary.kind} {version} is the champion already.")
    try:
        choose_rollback(connection, summary.kind, version)
    except RefusedError as error:
        raise HTTPException(409, str(error)) from None
    return summary
