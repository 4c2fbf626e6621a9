"""The pages with Airflow's own accounts, on a shop with images, without the rest of Airflow."""

import os
import re
import socket
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

import pytest
import uvicorn
from playwright.sync_api import sync_playwright

from fixtures.catalog_rows import NewImage, add_images, open_live_space, promote_model, tag_products
from fixtures.s3_server import S3Server
from fixtures.shop import Shop, make_image, open_shop
from tests.end_to_end.pages_browser import CHROMIUM

Role = Literal["viewer", "user", "op", "admin"]
HOSTILE = "\"'><script>alert(1)</script>../../%00"


@dataclass(frozen=True)
class Visitor:
    """A user with a browser; without a role they are not logged in."""

    client: Any

    def get(self, page: str, **query: object) -> Any:
        """Request a page."""
        return self.client.get(f"/catalog/{page}", params=query or None, follow_redirects=False)

    def post(self, page: str, data: dict[str, Any] | None = None, **files: Any) -> Any:
        """Send a form as a browser sends those of our own pages."""
        return self.client.post(
            f"/catalog/{page}",
            data=data,
            files=files or None,
            headers={"Sec-Fetch-Site": "same-origin"},
            follow_redirects=False,
        )


Visit = Callable[[Role | None], Visitor]
"""Logs a user with this role in; None is a visitor without a login."""


@dataclass(frozen=True)
class BrowsedShop:
    """A shop with images in its bucket and its catalog."""

    shop: Shop
    image_ids: list[int]
    classifier: int


@pytest.fixture(scope="session")
def airflow_accounts(airflow_home: None) -> Iterator[Any]:
    """Airflow's auth manager, with the one table that it reads."""
    with patch.dict(
        os.environ,
        {
            "AIRFLOW__API_AUTH__JWT_SECRET": "another secret of these tests, which is long enough to sign with",
        },
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from airflow import settings
            from airflow.api_fastapi.app import create_auth_manager
            from airflow.models.revoked_token import RevokedToken

            RevokedToken.__table__.create(settings.engine, checkfirst=True)
            manager = create_auth_manager()
        yield manager


@pytest.fixture
def browsed(
    s3_server: S3Server, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[BrowsedShop]:
    """Five images of three products. The last image has no tag, and the first product has a hostile name."""
    with open_shop(s3_server, database_url, tmp_path) as shop:
        image_ids, classifier = _fill(shop)
        with show_shop(shop, monkeypatch):
            yield BrowsedShop(shop, image_ids, classifier)


@contextmanager
def show_shop(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make the pages show this shop."""
    from catalog_airflow.pages import catalog_access, images

    def forget() -> None:
        for kept in (
            catalog_access.open_query_client,
            catalog_access.open_catalog,
            catalog_access.open_queue,
            images.open_cache,
        ):
            kept.cache_clear()

    for name, value in shop.environment.items():
        monkeypatch.setenv(name, value)
    forget()
    yield
    catalog_access.open_query_client().close()
    catalog_access.open_catalog().engine.dispose()
    forget()


def _fill(shop: Shop) -> tuple[list[int], int]:
    from sqlalchemy import text

    images = [
        NewImage("P1", "dress", (1, 0, 0), 0.9, "P1_1.jpg"),
        NewImage("P1", "hat", (0.9, 0.1, 0), 0.4, "P1_2.jpg"),
        NewImage("P2", "hat", (0, 1, 0), 0.95, f"{HOSTILE.replace('%00', '')}.jpg"),
        NewImage("P3", "shoes", (0, 0, 1), 0.6, "P3_1.jpg"),
        NewImage("P3", None, None, object_key="P3_2.jpg"),
    ]
    with shop.connections.engine.begin() as connection:
        classifier, space_id = promote_model(connection, "classifier"), open_live_space(connection, 3)
        image_ids = add_images(connection, images, space_id, classifier)
        tag_products(connection, classifier, {"P1": "dress"}, disagree=True)
        tag_products(connection, classifier, {"P2": "hat", "P3": "shoes"})
        connection.execute(
            text("UPDATE catalog.products SET display_name = :name WHERE product_id = 'P1'"),
            {"name": HOSTILE.replace("%00", "")},
        )
    for number, image in enumerate(images):
        if image.product_id != "P2":
            assert image.object_key is not None
            shop.put(image.object_key, make_image(number, (600, 800)))
    adopt_bucket(shop)
    return image_ids, classifier


def adopt_bucket(shop: Shop) -> None:
    """Set bucket and etags of the rows to those that the endpoint lists."""
    from sqlalchemy import text

    listed = [item for page in shop.connections.store.list_pages(shop.connections.source) for item in page]
    with shop.connections.engine.begin() as connection:
        connection.execute(
            text("UPDATE catalog.images SET bucket = :bucket"), {"bucket": shop.connections.source.bucket}
        )
        for item in listed:
            connection.execute(
                text("UPDATE catalog.images SET etag = :etag, size_bytes = :size WHERE object_key = :key"),
                {"etag": item.etag, "size": item.size_bytes, "key": item.key},
            )


@pytest.fixture
def visit(enter: Visit, browsed: BrowsedShop) -> Visit:
    """Log visitors of the browsed shop in."""
    return enter


@pytest.fixture
def mounted_pages(airflow_accounts: Any) -> Any:
    """The pages, mounted where Airflow mounts them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from fastapi import FastAPI

    from catalog_airflow.pages.app import create_pages_app

    airflow = FastAPI()
    airflow.mount("/catalog", create_pages_app())
    return airflow


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A browser for all tests of a module. They are skipped without one."""
    if not CHROMIUM.exists():
        pytest.skip("no Chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        # Chromium's sandbox does not work for root, the usual user in containers.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def served_url(mounted_pages: Any, browsed: BrowsedShop) -> Iterator[str]:
    """Serve the pages of the shop to browsers. Return the address of the server."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(mounted_pages, log_config=None, lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join()


@pytest.fixture
def make_login(airflow_accounts: Any) -> Callable[[Role], str]:
    """Create the value of the cookie ``_token`` for a role in Airflow."""
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser

    def make(role: Role) -> str:
        login: str = airflow_accounts.generate_jwt(SimpleAuthManagerUser(username=f"{role}@example.test", role=role))
        return login

    return make


@pytest.fixture
def enter(mounted_pages: Any, make_login: Callable[[Role], str]) -> Visit:
    """Log visitors of the shown shop in."""
    from starlette.testclient import TestClient

    def make(role: Role | None) -> Visitor:
        client = TestClient(mounted_pages, raise_server_exceptions=False)
        if role:
            client.cookies.set("_token", make_login(role))
        return Visitor(client)

    return make


def read_text(html: str) -> str:
    """Return the text of a page, without its tags."""
    return " ".join(re.sub(r"<[^>]+>", " ", html).split())
