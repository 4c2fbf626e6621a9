"""How soon the pages answer in a large catalog: each page, each combination of the grid's filters, deep pages too.

    python -m benchmarks.serving.pages
    python -m benchmarks.serving.pages --images 100000 --json somewhere.json

Postgres, the schema, the pages and Airflow's accounts are real, the rows are made up. An admin who is logged
in asks one address after the other, in the process of the pages. Words that are new and uploaded photos go to the query
service first, which is measured by `python -m benchmarks.serving.query_service`.
"""

import argparse
import json
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from sqlalchemy import Engine, text

from benchmarks.empty_stack import open_empty_stack
from benchmarks.machine import describe_machine
from benchmarks.made_up_photos import make_jpegs
from benchmarks.search.load_catalog import load_catalog
from benchmarks.search.made_up_vectors import PHOTOS_PER_PRODUCT, make_catalog
from benchmarks.serving.lived_in_catalog import live_in
from benchmarks.serving.page_addresses import Address, list_grids, list_pages
from jobs.database.engine import create_database_engine
from jobs.settings import PROJECT_ROOT
from jobs.storage.object_store import ObjectStore
from jobs.storage.uri import S3Uri

BAR_MILLISECONDS = 300.0
PHOTOS = 20
AIRFLOW = {
    "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
    "AIRFLOW__API__SECRET_KEY": "a secret of this benchmark",
    "AIRFLOW__API_AUTH__JWT_SECRET": "another secret of this benchmark, which is long enough to sign with",
}


@dataclass(frozen=True)
class AddressTime:
    """Milliseconds of the first answer, and of those after it."""

    group: str
    path: str
    first: float
    later: list[float]


def main() -> None:
    """Fill a catalog, ask for all pages, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--repetitions", type=int, default=3, help="of each address, after the first")
    parser.add_argument("--json", type=Path, default=PROJECT_ROOT / ".local" / "bench-pages.json")
    arguments = parser.parse_args()
    products = -(-arguments.images // PHOTOS_PER_PRODUCT)
    with tempfile.TemporaryDirectory(prefix="bench-") as home, open_empty_stack() as environment:
        engine = create_database_engine(environment["CATALOG_DATABASE_URL"])
        catalog = make_catalog(products * PHOTOS_PER_PRODUCT)
        load_catalog(engine, catalog)
        live_in(engine, catalog)
        del catalog
        images = products * PHOTOS_PER_PRODUCT
        with patch.dict(os.environ, environment | AIRFLOW | {"AIRFLOW_HOME": home}):
            ask = open_pages()
            load_before = os.getloadavg()[0]
            addresses = [*list_pages(engine, images), *list_grids(engine, images)]
            times = [measure(ask, address, arguments.repetitions) for address in addresses]
            times += measure_thumbnails(ask, engine, environment, arguments.repetitions)
        engine.dispose()
    machine = describe_machine("apache-airflow", "fastapi", "sqlalchemy") | {"load": round(load_before, 2)}
    print(json.dumps(machine))
    print_table(times)
    arguments.json.parent.mkdir(exist_ok=True)
    arguments.json.write_text(json.dumps({"machine": machine, "times": [asdict(one) for one in times]}, indent=1))


class Asker:
    """Somebody who is logged in and asks for pages."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def ask(self, address: Address) -> float:
        """Milliseconds until the whole answer is there.

        Raises:
            SystemExit: it is not the page that was asked for.
        """
        started = time.perf_counter()
        answer = self._client.get(f"/catalog/{address.path}", follow_redirects=False)
        milliseconds = 1000 * (time.perf_counter() - started)
        if answer.status_code != 200:
            raise SystemExit(f"{address.path}: {answer.status_code}, {answer.text[:2000]}")
        return milliseconds


def open_pages() -> Asker:
    """The pages under Airflow's simple accounts; Airflow's home and secrets are in the environment."""
    # As Airflow does.
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
    return Asker(client)


def measure(asker: Asker, address: Address, repetitions: int) -> AddressTime:
    """Ask once, then as often as wanted."""
    first = asker.ask(address)
    return AddressTime(address.group, address.path, first, [asker.ask(address) for _ in range(repetitions)])


def measure_thumbnails(
    asker: Asker, engine: Engine, environment: dict[str, str], repetitions: int
) -> Iterator[AddressTime]:
    """Of some photos that lie in the bucket; the first answer of each decodes the photo, later ones are kept."""
    place = S3Uri.parse(environment["CATALOG_SOURCE_URI"])
    store = ObjectStore(environment["CATALOG_S3_ENDPOINT_URL"])
    for number, content in enumerate(make_jpegs(PHOTOS)):
        store.write(place / f"{number}.jpg", content)
    listed = [item for page in store.list_pages(place) for item in page]
    with engine.begin() as connection:
        for image_id, item in enumerate(listed, start=1):
            connection.execute(
                text(
                    "UPDATE catalog.images SET bucket = :bucket, object_key = :key, etag = :etag WHERE image_id = :id"
                ),
                {"bucket": place.bucket, "key": item.key, "etag": item.etag, "id": image_id},
            )
    for image_id in range(1, len(listed) + 1):
        yield measure(asker, Address("a thumbnail", f"thumbnails/{image_id}"), repetitions)


def print_table(times: Sequence[AddressTime]) -> None:
    """For each group the median, the worst, and the address of the worst, of later and of first answers."""
    for group in dict.fromkeys(one.group for one in times):
        of_group = [one for one in times if one.group == group]
        later = [value for one in of_group for value in one.later]
        worst = max(of_group, key=lambda one: max(one.first, *one.later))
        over = sum(max(one.first, *one.later) > BAR_MILLISECONDS for one in of_group)
        print(
            f"{group:36} {len(of_group):5} addresses  first: p50 {np.median([one.first for one in of_group]):6.0f}, "
            f"worst {max(one.first for one in of_group):6.0f} ms  later: p50 {np.median(later):6.0f}, "
            f"worst {max(later):6.0f} ms  {over} over {BAR_MILLISECONDS:.0f} ms; {worst.path}"
        )


if __name__ == "__main__":
    main()
