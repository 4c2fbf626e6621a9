"""Compare two ways of adding the vectors of a night to a live catalog, and measure what they cost searches.

    python -m benchmarks.search.night_writes
    python -m benchmarks.search.night_writes --images 1000000 --night 20000

The first way inserts chunks into the live HNSW index, on one or several connections, as the nightly run does. The
second way loads the vectors into a table without an index and then builds an index over old and new vectors, to which
the search could switch. One client searches without a pause all the time.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from threading import Event

import numpy as np
from sqlalchemy import Engine, text

from benchmarks.results import Row, format_range, publish
from benchmarks.search.generated_catalog import (
    HASH_BYTES,
    IMAGES_PER_PRODUCT,
    load_catalog,
    load_second_space,
    make_catalog,
)
from benchmarks.search.recall import K, open_database
from jobs.database.spaces import create_space_index, drop_space, find_live_space, make_space_live
from jobs.database.tagging_results import Embedding, upsert_embeddings

CHUNK = 1024
CONNECTIONS = (1, 6)
"""The nightly run writes six chunks at the same time."""
ROUNDS = 3


@dataclass(frozen=True)
class Night:
    """The space to write to, its build, and the vectors of the night in chunks."""

    space_id: int
    build_id: int
    chunks: Sequence[Sequence[Embedding]]


def main() -> None:
    """Measure all ways in turn, and publish the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000, help="vectors in the live index beforehand")
    parser.add_argument("--night", type=int, default=20_000, help="vectors to add")
    arguments = parser.parse_args()
    catalog = make_catalog(arguments.images + arguments.night)
    vectors, first_new = catalog.vectors, len(catalog.vectors) - arguments.night
    seconds: dict[str, list[float]] = {"no writes": []}
    searches: dict[str, list[float]] = {}
    with open_database() as engine:
        load_catalog(engine, catalog)

        def try_way(way: str, work: Callable[[], object]) -> None:
            with search_without_pause(engine, searches.setdefault(way, []), first_new // IMAGES_PER_PRODUCT):
                seconds.setdefault(way, []).append(measure(work))

        for number in range(ROUNDS):
            for connections in CONNECTIONS:
                night = open_night(engine, vectors, first_new, f"live {number} {connections}", is_live=True)
                name = f"into the live index, {connections} connection{'s' if connections > 1 else ''}"
                try_way(name, partial(write, engine, night, connections))
            night = open_night(engine, vectors, first_new, f"rebuilt {number}", is_live=False)
            try_way("next to the index, then a new index", partial(write_and_index, engine, night))
            try_way("no writes", partial(time.sleep, 5))
    publish(
        "Adding the vectors of a night",
        f"{arguments.night:,} vectors of 512 dimensions are added to {arguments.images:,}, in chunks of {CHUNK:,}, "
        f"while one client searches without a pause. Medians of {ROUNDS} interleaved rounds; Postgres with pgvector as "
        "the local stack runs it; all share the cores. Latency is p50, p95 and maximum of `similar_products` in ms.",
        [make_row(way, searches[way], arguments.night, taken) for way, taken in seconds.items()],
        packages=["pgvector", "psycopg2-binary"],
    )


def open_night(engine: Engine, vectors: np.ndarray, first_new: int, name: str, *, is_live: bool) -> Night:
    """Load the vectors before the night into a new space. A live space has an index and replaces the one before."""
    space_id = load_second_space(engine, vectors[:first_new], name, is_indexed=is_live)
    if is_live:
        with engine.begin() as connection:
            replaced = find_live_space(connection)
            assert replaced is not None
            make_space_live(connection, space_id)
            drop_space(connection, replaced)
            # As autovacuum does within minutes; without statistics, the planner may not use the index.
            connection.execute(text(f"ANALYZE catalog.image_embeddings_{space_id:d}"))
    return make_night(engine, space_id, vectors, first_new)


def make_night(engine: Engine, space_id: int, vectors: np.ndarray, first_new: int) -> Night:
    """Return the vectors from a position on. Image ids start at 1."""
    statement = text("""
        SELECT b.build_id FROM catalog.embedding_spaces s
        JOIN catalog.model_builds b ON b.model_version_id = s.encoder_version_id WHERE s.space_id = :space
    """)
    with engine.connect() as connection:
        build_id = connection.execute(statement, {"space": space_id}).scalar_one()
    embeddings = [
        Embedding(place + 1, (place + 1).to_bytes(HASH_BYTES, "big"), vectors[place].astype(np.float32))
        for place in range(first_new, len(vectors))
    ]
    chunks = [embeddings[start : start + CHUNK] for start in range(0, len(embeddings), CHUNK)]
    return Night(space_id, build_id, chunks)


def write(engine: Engine, night: Night, connections: int) -> None:
    """Write one transaction per chunk."""

    def write_chunk(chunk: Sequence[Embedding]) -> None:
        with engine.begin() as connection:
            upsert_embeddings(connection, night.space_id, night.build_id, chunk)

    with ThreadPoolExecutor(connections) as threads:
        list(threads.map(write_chunk, night.chunks))


def write_and_index(engine: Engine, night: Night) -> None:
    """Write the night to a space without an index, and index all of its vectors."""
    write(engine, night, max(CONNECTIONS))
    with engine.begin() as connection:
        create_space_index(connection, night.space_id)


def measure(work: Callable[[], object]) -> float:
    """Return the seconds that a function takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


@contextmanager
def search_without_pause(engine: Engine, milliseconds: list[float], products: int) -> Iterator[None]:
    """Search for products like random ones until the end of the block, and add the latencies to a list."""
    statement = text(f"SELECT image_id FROM catalog.similar_products(:product, {K})")
    stop = Event()

    def search() -> None:
        random = np.random.default_rng(3)
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            while not stop.is_set():
                product = f"sku{random.integers(products) * 5 // 6 + 1}"
                milliseconds.append(1000 * measure(partial(connection.execute, statement, {"product": product})))

    with ThreadPoolExecutor(1) as thread:
        searching = thread.submit(search)
        try:
            yield
        finally:
            stop.set()
        searching.result()


def make_row(way: str, searches: Sequence[float], rows: int, seconds: Sequence[float]) -> Row:
    """Return a row of the table."""
    latencies = ", ".join(f"{value:.1f}" for value in np.percentile(searches, [50, 95, 100]))
    return {
        "way": way,
        "rows/s": None if way == "no writes" else format_range([rows / one for one in seconds], 0),
        "searches": len(searches),
        "latency": latencies,
    }


if __name__ == "__main__":
    main()
