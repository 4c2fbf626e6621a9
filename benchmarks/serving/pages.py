"""Measure the latency of the pages in a large catalog: every page, and the grid with all filters and deep pages.

    python -m benchmarks.serving.pages
    python -m benchmarks.serving.pages --images 100000

Postgres, the schema, the pages and Airflow's accounts are real; the rows are generated. A logged-in admin requests one
address at a time, in the process of the pages. Searches for new words or uploaded images are not measured here, because
they call the query service first. See `python -m benchmarks.serving.query_service`.
"""

import argparse
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import numpy as np
from sqlalchemy import Engine, text

from benchmarks.images import make_jpegs
from benchmarks.results import Row, publish
from benchmarks.search.generated_catalog import IMAGES_PER_PRODUCT, load_catalog, make_catalog
from benchmarks.serving.page_paths import Address, list_grids, list_pages
from benchmarks.serving.used_catalog import simulate_use
from benchmarks.stack import open_stack
from jobs.database.engine import create_database_engine
from jobs.settings import PROJECT_ROOT
from jobs.storage.locations import S3Uri
from jobs.storage.object_store import ObjectStore

TARGET_MILLISECONDS = 300.0
THUMBNAILS = 20
AIRFLOW = {
    "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
    "AIRFLOW__API__SECRET_KEY": "a secret of this benchmark",
    "AIRFLOW__API_AUTH__JWT_SECRET": "another secret of this benchmark, which is long enough to sign with",
}


@dataclass(frozen=True)
class AddressTime:
    """The latency of an address in milliseconds: of the first response and of later ones."""

    group: str
    path: str
    first: float
    later: list[float]


def main() -> None:
    """Fill a catalog, request all pages, and publish the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--repetitions", type=int, default=3, help="of each address, after the first")
    arguments = parser.parse_args()
    images = IMAGES_PER_PRODUCT * -(-arguments.images // IMAGES_PER_PRODUCT)
    with tempfile.TemporaryDirectory(prefix="bench-") as home, open_stack() as stack:
        engine = create_database_engine(stack.database_url)
        catalog = make_catalog(images)
        load_catalog(engine, catalog)
        simulate_use(engine, catalog)
        del catalog
        with patch.dict(os.environ, stack.environment | AIRFLOW | {"AIRFLOW_HOME": home}):
            client = open_pages()
            addresses = [*list_pages(engine, images), *list_grids(engine, images)]
            times = [measure(client, address, arguments.repetitions) for address in addresses]
            times += measure_thumbnails(client, engine, stack.environment, arguments.repetitions)
        engine.dispose()
    publish(
        "The pages",
        f"Milliseconds until a page is complete, in a generated catalog of {images:,} images after a year of use; real "
        "pages, Airflow accounts and rights, Postgres as the local stack runs it. One client requests each address "
        f"once, then {arguments.repetitions} times more.",
        list_rows(times),
        targets=f"{TARGET_MILLISECONDS:.0f} ms",
        packages=["apache-airflow", "fastapi", "sqlalchemy"],
    )


class PagesClient:
    """A logged-in client of the pages."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def request(self, address: Address) -> float:
        """Return the milliseconds until the response is complete.

        Raises:
            SystemExit: the status is not 200.
        """
        started = time.perf_counter()
        response = self._client.get(f"/catalog/{address.path}", follow_redirects=False)
        milliseconds = 1000 * (time.perf_counter() - started)
        if response.status_code != 200:
            raise SystemExit(f"{address.path}: {response.status_code}, {response.text[:2000]}")
        return milliseconds


def open_pages() -> PagesClient:
    """Open the pages with Airflow's simple accounts. The environment sets Airflow's home and secrets."""
    # Airflow also adds this folder.
    sys.path.append(str(PROJECT_ROOT / "plugins"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from airflow import settings
        from airflow.api_fastapi.app import create_auth_manager
        from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
        from airflow.models.revoked_token import RevokedToken
        from catalog_airflow.pages.app import create_pages_app
        from fastapi import FastAPI
        from starlette.testclient import TestClient

        RevokedToken.__table__.create(settings.engine, checkfirst=True)
        accounts: Any = create_auth_manager()
    airflow = FastAPI()
    airflow.mount("/catalog", create_pages_app())
    client = TestClient(airflow)
    user = SimpleAuthManagerUser(username="viewer@example.test", role="admin")
    client.cookies.set("_token", accounts.generate_jwt(user))
    return PagesClient(client)


def measure(client: PagesClient, address: Address, repetitions: int) -> AddressTime:
    """Request an address once, then ``repetitions`` times more."""
    first = client.request(address)
    return AddressTime(address.group, address.path, first, [client.request(address) for _ in range(repetitions)])


def measure_thumbnails(
    client: PagesClient, engine: Engine, environment: dict[str, str], repetitions: int
) -> Iterator[AddressTime]:
    """Measure thumbnails of some images in the bucket. The first request decodes the image, later ones are cached."""
    place = S3Uri.parse(environment["CATALOG_SOURCE_URI"])
    store = ObjectStore(environment["CATALOG_S3_ENDPOINT_URL"])
    for number, content in enumerate(make_jpegs(THUMBNAILS)):
        store.write(place / f"{number}.jpg", content)
    listed = [item for page in store.list_pages(place) for item in page]
    with engine.begin() as connection:
        for image_id, item in enumerate(listed, start=1):
            connection.execute(
                text(
                    "UPDATE catalog.images SET bucket = :bucket, object_key = :key, etag = :etag, size_bytes = :size "
                    "WHERE image_id = :id"
                ),
                {
                    "bucket": place.bucket,
                    "key": item.key,
                    "etag": item.etag,
                    "size": item.size_bytes,
                    "id": image_id,
                },
            )
    for image_id in range(1, len(listed) + 1):
        yield measure(client, Address("a thumbnail: decoded, then cached", f"thumbnails/{image_id}"), repetitions)


def list_rows(times: Sequence[AddressTime]) -> list[Row]:
    """Return a row for each group of addresses, and print the slowest address of each group."""
    rows: list[Row] = []
    for group in dict.fromkeys(one.group for one in times):
        of_group = [one for one in times if one.group == group]
        slowest = max(of_group, key=lambda one: max(one.first, *one.later))
        over = sum(max(one.first, *one.later) > TARGET_MILLISECONDS for one in of_group)
        print(f"  {group}: {over} over {TARGET_MILLISECONDS:.0f} ms, slowest {slowest.path}")
        first, later = [one.first for one in of_group], [value for one in of_group for value in one.later]
        rows.append(
            {
                "page": group,
                "addresses": len(of_group),
                "first: p50": round(np.median(first)),
                "first: maximum": round(max(first)),
                "later: p50": round(np.median(later)),
                "later: p95": round(np.percentile(later, 95)),
                "later: maximum": round(max(later)),
            }
        )
    return rows


if __name__ == "__main__":
    main()
