"""Model versions: how each was judged, which answers, and who decided so."""

from typing import Annotated

from airflow.api.common.trigger_dag import trigger_dag
from airflow.exceptions import DagNotFound
from airflow.models import DagRun
from airflow.utils.types import DagRunTriggeredByType
from fastapi import APIRouter, HTTPException, Path, Query
from fastapi.responses import HTMLResponse
from sqlalchemy import Connection

from catalog_airflow.defaults import DECISION_DAG
from catalog_airflow.pages.access import AnyViewer
from catalog_airflow.pages.catalog_access import read_catalog
from catalog_airflow.pages.templating import render_page
from jobs.database.model_listing import list_model_versions, show_model_version
from jobs.database.model_versions import MODEL_KINDS, ModelKind
from jobs.database.promotions import read_promotion_history
from jobs.errors import NotFoundError, RetryableError
from jobs.retag.rollback import choose_rollback
from jobs.retrain.comparison import read_comparison, read_comparisons

PROMOTIONS_SHOWN = 50

router = APIRouter()

VersionId = Annotated[int, Path(ge=1, lt=2**31)]


@router.get("/models")
def show_models(viewer: AnyViewer, decision: Annotated[str, Query(max_length=250)] = "") -> HTMLResponse:
    """All versions, the latest candidates beside the champions, and the history of promotions.

    ``decision`` is the run of a decision that was just made, whose outcome is waited for.
    """
    with read_catalog() as connection:
        versions = list_model_versions(connection)
        comparisons = read_comparisons(connection)
        earlier = {kind: _find_earlier(connection, kind) for kind in MODEL_KINDS}
        history = read_promotion_history(connection, PROMOTIONS_SHOWN)
    state = read_decision_state(decision) if decision else None
    return render_page(
        "models.html",
        viewer,
        versions=versions,
        comparisons=comparisons,
        earlier=earlier,
        history=history,
        decision=decision,
        decision_state=state,
        decision_dag=DECISION_DAG,
    )


@router.get("/models/{version}")
def show_model(viewer: AnyViewer, version: VersionId) -> HTMLResponse:
    """One version with its gates."""
    with read_catalog() as connection:
        try:
            model = show_model_version(connection, version)
        except NotFoundError:
            raise HTTPException(404, f"There is no model version {version}.") from None
        comparison = read_comparison(connection, version)
    return render_page("model.html", viewer, model=model, summary=model.summary, comparison=comparison)


def _find_earlier(connection: Connection, kind: ModelKind) -> int | None:
    """The version that a rollback goes back to, if there is one."""
    try:
        return choose_rollback(connection, kind)
    except NotFoundError:
        return None


def start_decision(decision_id: int, decided_by: str) -> str:
    """Start the DAG for a stored decision, in a person's name; returns the run's id.

    Raises:
        RetryableError: Airflow does not know the DAG yet.
    """
    try:
        run = trigger_dag(
            DECISION_DAG,
            triggered_by=DagRunTriggeredByType.UI,
            triggering_user_name=decided_by,
            conf={"decision": decision_id},
        )
    except DagNotFound:
        raise RetryableError(
            f"Airflow has not read the DAG {DECISION_DAG} yet: see that its dag processor runs"
        ) from None
    assert run is not None
    run_id: str = run.run_id
    return run_id


def read_decision_state(run_id: str) -> str | None:
    """``queued``, ``running``, ``success`` or ``failed``; None if there is no such run."""
    runs = DagRun.find(dag_id=DECISION_DAG, run_id=run_id)
    return str(runs[0].state) if runs else None
