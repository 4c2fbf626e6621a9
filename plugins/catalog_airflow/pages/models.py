"""Model versions: how each was judged, which answers, and who decided so."""

from typing import Annotated

from fastapi import APIRouter, HTTPException, Path
from fastapi.responses import HTMLResponse

from catalog_airflow.pages.access import AnyViewer
from catalog_airflow.pages.catalog_access import read_catalog
from catalog_airflow.pages.templating import render_page
from jobs.database.model_listing import list_model_versions, show_model_version
from jobs.database.promotion_history import read_promotion_history
from jobs.errors import PermanentError

PROMOTIONS_SHOWN = 50

router = APIRouter()

VersionId = Annotated[int, Path(ge=1, lt=2**31)]


@router.get("/models")
def show_models(viewer: AnyViewer) -> HTMLResponse:
    """All versions, and the history of promotions."""
    with read_catalog() as connection:
        versions = list_model_versions(connection)
        history = read_promotion_history(connection, PROMOTIONS_SHOWN)
    return render_page("models.html", viewer, versions=versions, history=history)


@router.get("/models/{version}")
def show_model(viewer: AnyViewer, version: VersionId) -> HTMLResponse:
    """One version with its gates."""
    with read_catalog() as connection:
        try:
            model = show_model_version(connection, version)
        except PermanentError:
            raise HTTPException(404, f"There is no model version {version}.") from None
    return render_page("model.html", viewer, model=model, summary=model.summary)
