"""Define the plugin that Airflow loads. The pages are imported at the first request."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, ClassVar

from airflow.plugins_manager import AirflowPlugin

from catalog_airflow.defaults import PAGES_PREFIX
from catalog_airflow.page_links import CatalogPageLink, EvaluationPageLink

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class LazyApp:
    """An ASGI application that creates the real one in a thread at the first request."""

    def __init__(self, make_app: Callable[[], App]) -> None:
        self._make_app = make_app
        self._app: App | None = None
        self._lock: asyncio.Lock | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if self._app is None:
            # Not created in the constructor, because a lock belongs to the event loop that serves requests.
            self._lock = self._lock or asyncio.Lock()
            async with self._lock:
                if self._app is None:
                    self._app = await asyncio.to_thread(self._make_app)
        await self._app(scope, receive, send)


class RedirectBarePrefix:
    """ASGI middleware that redirects ``/catalog``, which Airflow would not route to the pages without a slash."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Redirect the bare prefix, and pass all other requests on."""
        if scope["type"] == "http" and scope["path"].removeprefix(scope.get("root_path", "")) == PAGES_PREFIX:
            # Relative to the address in the browser, which may have the prefix of a proxy.
            location = f"{PAGES_PREFIX.strip('/')}/overview".encode()
            await send({"type": "http.response.start", "status": 307, "headers": [(b"location", location)]})
            await send({"type": "http.response.body"})
        else:
            await self._app(scope, receive, send)


def make_pages_app() -> App:
    """Import and create the pages."""
    # Imported here, because Airflow loads plugins before its API can be imported and in processes without pages.
    from catalog_airflow.pages.app import create_pages_app

    return create_pages_app()


class CatalogPlugin(AirflowPlugin):  # type: ignore[misc]
    """The plugin: the pages, their places in the UI, and the links to them."""

    name = "catalog"
    operator_extra_links: ClassVar[list[Any]] = [CatalogPageLink(), EvaluationPageLink()]
    fastapi_apps: ClassVar[list[dict[str, Any]]] = [
        {"app": LazyApp(make_pages_app), "url_prefix": PAGES_PREFIX, "name": "Catalog tagger"}
    ]
    fastapi_root_middlewares: ClassVar[list[dict[str, Any]]] = [
        {"middleware": RedirectBarePrefix, "name": "Catalog tagger, bare prefix"}
    ]
    external_views: ClassVar[list[dict[str, Any]]] = [
        {
            "name": "Catalog",
            "href": f"{PAGES_PREFIX}/overview",
            "destination": "nav",
            "url_route": "catalog",
            "icon": f"{PAGES_PREFIX}/static/icon.svg",
            "icon_dark_mode": f"{PAGES_PREFIX}/static/icon_dark.svg",
        },
        {
            "name": "Catalog",
            "href": f"{PAGES_PREFIX}/overview",
            "destination": "dag",
            "url_route": "catalog_overview",
        },
        {
            "name": "Catalog report",
            "href": f"{PAGES_PREFIX}/run?run={{DAG_ID}}/{{RUN_ID}}",
            "destination": "dag_run",
            "url_route": "catalog_run",
        },
    ]
