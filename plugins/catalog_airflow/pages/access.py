"""Check who the visitor is and what they may do, and that forms come from our own pages."""

from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlsplit

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.base_user import BaseUser
from airflow.api_fastapi.auth.managers.models.resource_details import AssetDetails, DagAccessEntity, DagDetails
from airflow.api_fastapi.core_api.security import get_user
from airflow.configuration import conf
from fastapi import Depends, HTTPException, Request

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


def require_same_origin(request: Request) -> None:
    """Refuse posts that a browser sends from a page of another origin (docs/decisions/pages.md).

    A request with neither header does not come from a browser, so no login cookie was attached against its will.
    """
    if request.method in {"GET", "HEAD"}:
        return
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if site is not None:
        is_ours = site in {"same-origin", "none"}
    else:
        # Old browsers, and all browsers over plain HTTP. Behind a proxy the Host may differ from what the browser sees.
        known = {request.headers.get("host"), urlsplit(conf.get("api", "base_url", fallback="")).netloc}
        is_ours = origin is None or urlsplit(origin).netloc in known - {None, ""}
    if not is_ours:
        raise HTTPException(
            403,
            "This form was sent from another site. If it was not, Airflow is behind a proxy: set [api] base_url to the "
            "address that browsers use.",
        )
