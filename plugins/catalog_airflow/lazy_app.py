"""The pages' application, made when it is first asked for, so that Airflow starts as quickly as without it."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class LazyApp:
    """An ASGI application that another one stands behind, which a function makes in a thread of its own."""

    def __init__(self, make_app: Callable[[], App]) -> None:
        self._make_app = make_app
        self._app: App | None = None
        self._lock: asyncio.Lock | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if self._app is None:
            # Not in the constructor: a lock belongs to the loop that serves.
            self._lock = self._lock or asyncio.Lock()
            async with self._lock:
                if self._app is None:
                    self._app = await asyncio.to_thread(self._make_app)
        await self._app(scope, receive, send)
