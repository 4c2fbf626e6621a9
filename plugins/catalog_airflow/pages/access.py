"""Check who the visitor is and what they may do, and that forms come from our own pages."""

from dataclasses import dataclass
from typing import Annotated

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.base_user import BaseUser
from airflow.api_fastapi.auth.managers.models.resource_details import AssetDetails, DagAccessEntity, DagDetails
from airflow.api_fastapi.core_api.security import get_user
from airflow.configuration import conf
from fastapi import Depends, Form, HTTPException
from itsdangerous import BadSignature, URLSafeTimedSerializer

from catalog_airflow.defaults import DECISION_DAG

DAG_ID = "catalog_ingest"


@dataclass(frozen=True)
class Viewer:
    """Somebody who is logged in and may look."""

    name: str
    may_review: bool
    may_promote: bool


def identify_viewer(user: Annotated[BaseUser, Depends(get_user)]) -> Viewer:
    """Ask Airflow; 401 or 403 for those who may not look."""
    manager = get_auth_manager()
    details = DagDetails(id=DAG_ID)
    if not manager.is_authorized_dag(method="GET", details=details, user=user):
        raise HTTPException(403, "You may not see the catalog. Ask for the right to see the DAG catalog_ingest.")
    return Viewer(
        name=user.get_name(),
        may_review=manager.is_authorized_dag(
            method="POST", access_entity=DagAccessEntity.RUN, details=details, user=user
        ),
        may_promote=manager.is_authorized_dag(
            method="POST", access_entity=DagAccessEntity.RUN, details=DagDetails(id=DECISION_DAG), user=user
        )
        and manager.is_authorized_asset(method="POST", details=AssetDetails(), user=user),
    )


AnyViewer = Annotated[Viewer, Depends(identify_viewer)]


def require_reviewer(viewer: AnyViewer) -> Viewer:
    """Let those pass who may review."""
    if not viewer.may_review:
        raise HTTPException(403, "You may look, but not change anything: that takes the right to start catalog_ingest.")
    return viewer


def require_promoter(viewer: AnyViewer) -> Viewer:
    """Let those pass who may decide which model answers."""
    if not viewer.may_promote:
        raise HTTPException(
            403,
            "You may not promote or roll back: that takes the right to start model_decision and announce assets.",
        )
    return viewer


Reviewer = Annotated[Viewer, Depends(require_reviewer)]
Promoter = Annotated[Viewer, Depends(require_promoter)]


VALID_SECONDS = 12 * 3600


def make_token(viewer_name: str) -> str:
    """A token that only this viewer's forms may carry, signed with the secret that all API servers share."""
    token: str = _open_serializer().dumps(viewer_name)
    return token


def require_token(viewer: AnyViewer, token: Annotated[str, Form()] = "") -> None:
    """Refuse a post without a token of the viewer's own."""
    try:
        is_own = _open_serializer().loads(token, max_age=VALID_SECONDS) == viewer.name
    except BadSignature:
        is_own = False
    if not is_own:
        raise HTTPException(403, "This form is out of date, or not ours. Go back, load the page again and repeat.")


def _open_serializer() -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(conf.get("api", "secret_key"), salt="catalog-pages")
