"""No form is larger than a photo may be: what announces more is refused unread, what brings more is cut off."""

from fastapi import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY_BYTES = 64_000_000
"""Forms are read before anybody is asked who sends them; the query service has the exact limit, of the ingest."""


class BodyLimit:
    """Wraps an application."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        received_bytes = 0

        async def receive_bounded() -> Message:
            nonlocal received_bytes
            message = await receive()
            received_bytes += len(message.get("body", b""))
            if received_bytes > MAX_BODY_BYTES:
                raise HTTPException(413, f"What you sent has more than {MAX_BODY_BYTES // 1_000_000} MB.")
            return message

        await self._app(scope, receive_bounded, send)
