"""Who is there, and what they may do, as Airflow's auth manager says.

Whoever may see the DAG ``catalog_ingest`` may look; whoever may start it may review and see to failures; whoever may
start ``model_decision``, and announce assets as its promotion does, may promote and roll back.
"""

from dataclasses import dataclass
from typing import Annotated

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.base_user import BaseUser
from airflow.api_fastapi.auth.managers.models.resource_details import AssetDetails, DagAccessEntity, DagDetails
from airflow.api_fastapi.core_api.security import get_user
from fastapi import Depends, HTTPException

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
