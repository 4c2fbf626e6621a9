"""Measure how many searches several clients get from one Postgres with a million images.

    python -m benchmarks.search.concurrency
    python -m benchmarks.search.concurrency --images 100000 --clients 1 8

Each client has a connection and sends one query at a time, for random products, without a pause. Clients and Postgres
share the cores.
"""

import argparse
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
from sqlalchemy import Engine, NullPool, create_engine, text

from benchmarks.results import Row, publish
from benchmarks.search.generated_catalog import load_catalog, make_catalog
from benchmarks.search.recall import K, open_database

KINDS = {"all": None, "category of 10 %": "a tenth"}
"""The searches by name, with their category."""
WARM_UP_SECONDS = 5


def main() -> None:
    """Measure each number of clients and publish the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--seconds", type=int, default=30)
    arguments = parser.parse_args()
    catalog = make_catalog(arguments.images)
    products = catalog.products
    rows = []
    with open_database() as engine:
        load_catalog(engine, catalog)
        del catalog
        for name, category in KINDS.items():
            for clients in arguments.clients:
                measure(engine, products, category, clients, WARM_UP_SECONDS)
                milliseconds = measure(engine, products, category, clients, arguments.seconds)
                rows.append(make_row(name, clients, milliseconds, arguments.seconds))
                print(f"  {rows[-1]}", flush=True)
    publish(
        "Clients that search at the same time",
        f"`similar_products` of {K} results for random products in {arguments.images:,} generated images, "
        f"{arguments.seconds} s per row after a warm-up. Each client sends one query at a time; clients and Postgres "
        "share the cores.",
        rows,
        packages=["pgvector", "psycopg2-binary"],
    )


def measure(engine: Engine, products: int, category: str | None, clients: int, seconds: float) -> list[float]:
    """Let clients search for some seconds. Return the milliseconds of all searches."""
    # The jobs' engine has fewer connections than clients.
    unlimited = create_engine(engine.url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with ThreadPoolExecutor(clients) as threads:
        search = partial(search_without_pause, unlimited, products, category, time.perf_counter() + seconds)
        return [one for some in threads.map(search, range(clients)) for one in some]


def search_without_pause(engine: Engine, products: int, category: str | None, end: float, seed: int) -> list[float]:
    """Search until the end, a time of ``perf_counter``. Return the milliseconds of each search."""
    statement = text("SELECT product_id FROM catalog.similar_products(:product, :k, :category)")
    random = np.random.default_rng(seed)
    milliseconds = []
    with engine.connect() as connection:
        while (started := time.perf_counter()) < end:
            parameters = {"product": f"sku{random.integers(products) + 1}", "k": K, "category": category}
            connection.execute(statement, parameters).all()
            milliseconds.append(1000 * (time.perf_counter() - started))
    return milliseconds


def make_row(kind: str, clients: int, milliseconds: list[float], seconds: float) -> Row:
    """Return a row of the table."""
    p50, p95, p99 = (round(float(value), 1) for value in np.percentile(milliseconds, [50, 95, 99]))
    rate = round(len(milliseconds) / seconds, 1)
    return {"search in": kind, "clients": clients, "queries/s": rate, "p50, ms": p50, "p95, ms": p95, "p99, ms": p99}


if __name__ == "__main__":
    main()
