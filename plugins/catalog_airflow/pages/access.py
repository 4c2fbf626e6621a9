"""Decide which requests are accepted: login, rights, origin of posts, and limits on bodies."""

import asyncio
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlsplit

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.base_user import BaseUser
from airflow.api_fastapi.auth.managers.models.resource_details import AssetDetails, DagAccessEntity, DagDetails
from airflow.api_fastapi.core_api.security import bearer_scheme, get_user
from airflow.configuration import conf
from fastapi import Depends, HTTPException, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from catalog_airflow.defaults import DECISION_DAG

INGEST_DAG = "catalog_ingest"
UPLOAD_PATH = "/search"
UPLOAD_BYTES = 64_000_000
"""Rough limit for uploads. The query service applies the exact limit of the ingest flow."""
FORM_BYTES = 256_000
"""Limit for all other forms. The longest one lists the failures of a page."""
UPLOAD_SECONDS, FORM_SECONDS = 60.0, 10.0
CLOSE = {"Connection": "close"}
"""Close the connection instead of reading the rest of a body."""


@dataclass(frozen=True)
class Viewer:
    """A logged-in user who may view the pages."""

    name: str
    may_review: bool
    may_promote: bool


def identify_viewer(request: Request, user: Annotated[BaseUser, Depends(get_user)]) -> Viewer:
    """Identify the user by Airflow's login. Respond 401 or 403 if they may not view the pages.

    Error pages find the viewer in the state of the request.
    """
    manager = get_auth_manager()
    details = DagDetails(id=INGEST_DAG)
    if not manager.is_authorized_dag(method="GET", details=details, user=user):
        raise HTTPException(403, "You may not view the catalog. Ask for the right to view the DAG catalog_ingest.")
    viewer = Viewer(
        name=user.get_name(),
        may_review=manager.is_authorized_dag(
            method="POST", access_entity=DagAccessEntity.RUN, details=details, user=user
        ),
        may_promote=manager.is_authorized_dag(
            method="POST", access_entity=DagAccessEntity.RUN, details=DagDetails(id=DECISION_DAG), user=user
        )
        and manager.is_authorized_asset(method="POST", details=AssetDetails(), user=user),
    )
    request.state.viewer = viewer
    return viewer


AnyViewer = Annotated[Viewer, Depends(identify_viewer)]


def require_reviewer(viewer: AnyViewer) -> Viewer:
    """Respond 403 to users who may not review."""
    if not viewer.may_review:
        raise HTTPException(
            403, "You may view the catalog but not change it. Ask for the right to start the DAG catalog_ingest."
        )
    return viewer


def require_promoter(viewer: AnyViewer) -> Viewer:
    """Respond 403 to users who may not promote or roll back models."""
    if not viewer.may_promote:
        raise HTTPException(
            403,
            "You may not promote or roll back. Ask for the rights to start model_decision and to create asset events.",
        )
    return viewer


Reviewer = Annotated[Viewer, Depends(require_reviewer)]
Promoter = Annotated[Viewer, Depends(require_promoter)]


def require_same_origin(request: Request) -> None:
    """Respond 403 to posts that a browser sends from a page of another origin (docs/decisions/pages.md).

    A request without Sec-Fetch-Site and Origin does not come from a browser, so no other page can have caused it.
    """
    if request.method in {"GET", "HEAD"}:
        return
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if site is not None:
        is_ours = site in {"same-origin", "none"}
    else:
        # Old browsers, and all browsers over plain HTTP. Behind a proxy, Host may differ from the browser's address.
        known = {request.headers.get("host"), urlsplit(conf.get("api", "base_url", fallback="")).netloc}
        is_ours = origin is None or origin.partition("://")[2] in known - {None, ""}
    if not is_ours:
        raise HTTPException(
            403,
            "This form was sent from another site. If it was not, Airflow is behind a proxy: set [api] base_url to the "
            "address that browsers use.",
        )


class BodyLimit:
    """Middleware that limits bodies. The application's exception handlers render the error responses."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] not in {"GET", "HEAD"}:
            receive = _BoundedBody(scope, receive).receive
        await self._app(scope, receive, send)


class _BoundedBody:
    """Limit the body of one request. The first call of `receive` checks the login before reading anything."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self._request = Request(scope)
        self._receive = receive
        is_upload = scope["path"].endswith(UPLOAD_PATH)
        self._limit_bytes = UPLOAD_BYTES if is_upload else FORM_BYTES
        self._seconds = UPLOAD_SECONDS if is_upload else FORM_SECONDS
        self._deadline: float | None = None
        self._received_bytes = 0
        self._is_complete = False

    async def receive(self) -> Message:
        """Return the next ASGI message.

        Raises:
            HTTPException: 401 or 403 without a valid login, 413 if the body is too large, 408 if it is too slow.
        """
        if self._is_complete:
            return await self._receive()
        if self._deadline is None:
            await self._require_login()
            declared = self._request.headers.get("content-length", "")
            self._require_size(int(declared) if declared.isdecimal() else 0)
            self._deadline = asyncio.get_running_loop().time() + self._seconds
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError:
            raise HTTPException(408, f"The upload took longer than {self._seconds:.0f} s.", CLOSE) from None
        self._received_bytes += len(message.get("body", b""))
        self._require_size(self._received_bytes)
        self._is_complete = not message.get("more_body", False)
        return message

    async def _require_login(self) -> None:
        try:
            await get_user(self._request, None, await bearer_scheme(self._request))
        except HTTPException as refusal:
            raise HTTPException(refusal.status_code, refusal.detail, CLOSE) from None

    def _require_size(self, size_bytes: int) -> None:
        if size_bytes > self._limit_bytes:
            raise HTTPException(413, f"The upload is larger than {self._limit_bytes // 1000:,} kB.", CLOSE)
