"""Model versions: how each was judged, which answers, and who decided so."""

from typing import Annotated

from fastapi import APIRouter, HTTPException, Path, Query
from fastapi.responses import HTMLResponse
from sqlalchemy import Connection

from catalog_airflow.defaults import DECISION_DAG
from catalog_airflow.pages.access import AnyViewer
from catalog_airflow.pages.catalog_access import read_catalog
from catalog_airflow.pages.decision_runs import read_decision_state
from catalog_airflow.pages.templating import render_page
from jobs.browsing.comparison import read_comparison, read_comparisons
from jobs.database.model_listing import list_model_versions, show_model_version
from jobs.database.model_versions import MODEL_KINDS, ModelKind
from jobs.database.promotion_history import read_promotion_history
from jobs.errors import PermanentError
from jobs.promotion.rollback import choose_rollback

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
        except PermanentError:
            raise HTTPException(404, f"There is no model version {version}.") from None
        comparison = read_comparison(connection, version)
    return render_page("model.html", viewer, model=model, summary=model.summary, comparison=comparison)


def _find_earlier(connection: Connection, kind: ModelKind) -> int | None:
    """The version that a rollback goes back to, if there is one."""
    try:
        return choose_rollback(connection, kind)
    except PermanentError:
        return None
