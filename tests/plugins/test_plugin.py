"""The plugin routes the address of the pages, with and without a slash at its end."""

import asyncio
from typing import Any

import pytest


@pytest.mark.parametrize(
    ("root_path", "path", "location"),
    [
        ("", "/catalog", b"catalog/overview"),
        ("/airflow", "/airflow/catalog", b"catalog/overview"),
        ("", "/catalog/", None),
        ("", "/catalogs", None),
        ("", "/dags/catalog", None),
    ],
)
def test_the_bare_prefix_is_redirected(root_path: str, path: str, location: bytes | None) -> None:
    from catalog_airflow.plugin import CatalogPlugin

    passed_on, sent = [], []

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        passed_on.append(scope["path"])

    async def receive() -> Any:
        return {"type": "http.request"}

    async def send(message: Any) -> None:
        sent.append(message)

    (registered,) = CatalogPlugin.fastapi_root_middlewares
    scope = {"type": "http", "path": path, "root_path": root_path}
    asyncio.run(registered["middleware"](serve)(scope, receive, send))
    assert passed_on == ([] if location else [path])
    assert [message["headers"] for message in sent if "headers" in message] == (
        [[(b"location", location)]] if location else []
    )
