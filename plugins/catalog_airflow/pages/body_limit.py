"""Check the login before a request body is read, and stop reading bodies that are too large or too slow."""

import asyncio

from airflow.api_fastapi.core_api.security import bearer_scheme, get_user
from fastapi import HTTPException, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

UPLOAD_PATH = "/search"
UPLOAD_BYTES = 64_000_000
"""The query service has the exact limit, that of the ingest."""
FORM_BYTES = 256_000
"""Of all other forms, the longest of which names the failures on a page."""
UPLOAD_SECONDS, FORM_SECONDS = 60.0, 10.0
LEAVE = {"Connection": "close"}
"""The rest of the body is not waited for."""


class BodyLimit:
    """Wrap an application, whose own exception handlers render the refusals."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] not in {"GET", "HEAD"}:
            receive = _BoundedBody(scope, receive).receive
        await self._app(scope, receive, send)


class _BoundedBody:
    """Bound the body of one request. The first call of `receive`, before anything is read, checks the login."""

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
            announced = self._request.headers.get("content-length", "")
            self._require_fit(int(announced) if announced.isdecimal() else 0)
            self._deadline = asyncio.get_running_loop().time() + self._seconds
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError:
            raise HTTPException(408, f"The upload took longer than {self._seconds:.0f} s.", LEAVE) from None
        self._received_bytes += len(message.get("body", b""))
        self._require_fit(self._received_bytes)
        self._is_complete = not message.get("more_body", False)
        return message

    async def _require_login(self) -> None:
        try:
            await get_user(self._request, None, await bearer_scheme(self._request))
        except HTTPException as refusal:
            raise HTTPException(refusal.status_code, refusal.detail, LEAVE) from None

    def _require_fit(self, size_bytes: int) -> None:
        if size_bytes > self._limit_bytes:
            raise HTTPException(413, f"The upload is larger than {self._limit_bytes // 1000:,} kB.", LEAVE)
