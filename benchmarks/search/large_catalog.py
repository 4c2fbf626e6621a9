"""Measure search in ten million images on a server with 8 GB of memory.

    python -m benchmarks.search.large_catalog
    python -m benchmarks.search.large_catalog --images 1000000 --memory-gb 1

Needs 40 GB of disk in the temporary folder for ten million images, and takes hours. The vectors are generated in parts
and are never all in memory. The space always gets a binary index, whatever its size. As root, a control group limits
the memory of Postgres, page cache included. Otherwise, the machine's memory is the limit. "Cold" means right after a
restart, with nothing of the database in memory.
"""

import argparse
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from unittest.mock import patch

import numpy as np
import psutil
from sqlalchemy import Connection, Engine, text

from benchmarks.results import Row, publish
from benchmarks.search.generated_catalog import (
    IMAGES_PER_PRODUCT,
    CatalogPlan,
    GeneratedCatalog,
    copy_vectors,
    draw_vectors,
    open_catalog,
    plan_catalog,
    stopwatch,
)
from benchmarks.search.recall import (
    K,
    Query,
    Search,
    find_nearest,
    make_product_queries,
    make_text_queries,
    measure,
    search_by_product,
    search_by_text,
    store_texts,
)
from benchmarks.stack import Stack, open_stack
from jobs.database import vector_indexes
from jobs.database.engine import create_database_engine
from jobs.database.spaces import create_space_index, make_space_live, read_live_space
from jobs.database.vector_codes import renew_vector_codes
from jobs.local.ports import WantedPorts
from jobs.local.stack import start_stack, stop_stack

DISTANT_NOISE = 2.0
"""Gives texts a cosine of 0.45 with the image that they start from, like those of a trained encoder, or less."""
CONTROL_GROUPS = Path("/sys/fs/cgroup/memory")
COLD_SEARCHES = 50


@dataclass(frozen=True)
class QueryKind:
    """Queries of one kind. The first half is a warm-up. ``truth`` has the products that each should find."""

    name: str
    queries: Sequence[Query]
    search: Search
    truth: Sequence[set[int]]


def main() -> None:
    """Measure and publish the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000_000)
    parser.add_argument("--memory-gb", type=float, default=8)
    parser.add_argument("--queries", type=int, default=200)
    arguments = parser.parse_args()
    with (
        limit_memory(arguments.memory_gb) as group,
        open_stack() as stack,
        patch.object(vector_indexes, "MAX_VECTOR_ROWS", 0),
    ):
        join(group, stack)
        row = measure_catalog(stack, group, arguments.images, arguments.queries)
    limit = f"{arguments.memory_gb:g} GB with its page cache, by a control group" if group else "not limited"
    publish(
        f"Search in {arguments.images:,} images",
        f"recall@{K} and p50, p95 in ms of {arguments.queries} queries on one connection, against an exact comparison. "
        f"The vectors are generated, {IMAGES_PER_PRODUCT} images per product, 512 dimensions, under a binary index; "
        f"Postgres with pgvector as the local stack runs it. Its memory is {limit}. Distant texts have a cosine "
        f"of about 0.45 with the image that they start from. Cold: p50, p95 of the first {COLD_SEARCHES} searches "
        "after a restart without page cache.",
        [row],
        targets="0.95, 60 ms; index in 40 min",
        packages=["pgvector", "psycopg2-binary"],
    )


def measure_catalog(stack: Stack, group: Path | None, images: int, queries: int) -> Row:
    """Load a catalog, index it and search it."""
    plan = plan_catalog(images)
    engine = create_database_engine(stack.database_url)
    with stopwatch() as loading:
        with engine.begin() as connection:
            space_id = open_catalog(connection, plan)
        report("images inserted")
        kinds = fill_space(engine, space_id, plan, queries)
    report("vectors copied")
    with engine.begin() as connection, stopwatch() as indexing:
        create_space_index(connection, space_id)
        make_space_live(connection, space_id)
    report(f"index built in {indexing():.0f} s")
    with engine.begin() as connection, stopwatch() as coding:
        renew_vector_codes(connection, space_id)
    report("codes computed")
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))
        sizes = read_sizes(connection)
    engine.dispose()
    restart_cold(stack, group)
    report("restarted")
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        cold = search_cold(connection, kinds[0])
        figures = {kind.name: str(measure(connection, kind.queries, kind.truth, kind.search)) for kind in kinds}
    engine.dispose()
    return {
        "images": len(plan.categories) * IMAGES_PER_PRODUCT,
        **figures,
        "cold": cold,
        "loaded, min": round(loading() / 60),
        "index built, min": round(indexing() / 60, 1),
        "codes made, min": round(coding() / 60, 1),
        "table, index, codes, database, GiB": ", ".join(f"{size / 2**30:.1f}" for size in sizes),
    }


def fill_space(engine: Engine, space_id: int, plan: CatalogPlan, queries: int) -> list[QueryKind]:
    """Copy all vectors into the space, and find the true results of all queries on the way.

    The queries start from the first part. Its products are as random as all others.
    """
    parts = draw_vectors(plan)
    first = next(parts)
    sample = GeneratedCatalog(first, plan.categories[: len(first) // IMAGES_PER_PRODUCT], plan.names)
    random, count = np.random.default_rng(1), 2 * queries
    texts = make_text_queries(sample, random, count), make_text_queries(sample, random, count, DISTANT_NOISE)
    by_kind: list[tuple[str, list[Query], Search]] = [
        ("similar_products", make_product_queries(sample, random, count, None), search_by_product),
        ("search_products", texts[0], search_by_text),
        (
            "distant texts",
            texts[1],
            lambda connection, number, query: search_by_text(connection, count + number, query),
        ),
        *(
            (f"category of {share}", make_product_queries(sample, random, count, category), search_by_product)
            for category, share in enumerate(("10 %", "1 %", "0.1 %"))
        ),
    ]

    def copy() -> Iterator[np.ndarray]:
        next_image = 1
        for part in chain([first], parts):
            with engine.begin() as connection:
                copy_vectors(connection, space_id, next_image, part)
            next_image += len(part)
            yield part

    truth = find_nearest(copy(), plan.categories, [query for _, some, _ in by_kind for query in some])
    with engine.begin() as connection:
        store_texts(connection, space_id, [*texts[0], *texts[1]])
    return [
        QueryKind(name, some, search, truth[number * count : (number + 1) * count])
        for number, (name, some, search) in enumerate(by_kind)
    ]


def search_cold(connection: Connection, kind: QueryKind) -> str:
    """Return p50 and p95 in ms of the first searches."""
    milliseconds = []
    for number, query in enumerate(kind.queries[:COLD_SEARCHES]):
        started = time.perf_counter()
        kind.search(connection, number, query)
        milliseconds.append(1000 * (time.perf_counter() - started))
    return ", ".join(f"{value:.0f}" for value in np.percentile(milliseconds, [50, 95]))


def read_sizes(connection: Connection) -> tuple[int, ...]:
    """Return the bytes of vectors, index, codes and the whole database."""
    space = read_live_space(connection)
    statement = text("""
        SELECT pg_table_size('catalog.' || :table), pg_relation_size('catalog.' || :index),
               pg_total_relation_size('catalog.vector_codes'), pg_database_size(current_database())
    """)
    return tuple(connection.execute(statement, {"table": space.partition, "index": space.index}).one())


def restart_cold(stack: Stack, group: Path | None) -> None:
    """Restart Postgres, and remove the files of the database from the page cache."""
    folder = stack.status.folder
    os.sync()  # Otherwise, the last checkpoint could take longer than a stop may.
    stop_stack(folder)
    os.sync()  # Only pages that are on disk can be removed.
    for file in (folder / "postgres").rglob("*"):
        if file.is_file():
            with file.open("rb") as opened:
                os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    start_stack(folder, WantedPorts(), None)
    join(group, stack)


@contextmanager
def limit_memory(gigabytes: float) -> Iterator[Path | None]:
    """Yield a control group with this limit of memory, or None if this process may not create one."""
    group = CONTROL_GROUPS / f"catalog-benchmark-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        report(f"no limit of memory: {error}")
        yield None
        return
    try:
        (group / "memory.limit_in_bytes").write_text(str(round(gigabytes * 2**30)))
        yield group
    finally:
        group.rmdir()


def join(group: Path | None, stack: Stack) -> None:
    """Move the processes of the running Postgres into a control group. Those that it starts later follow."""
    if group is None:
        return
    home = str(stack.status.folder / "postgres" / "data")
    for process in psutil.process_iter(["cmdline"]):
        if home in (process.info["cmdline"] or []):
            for one in (process, *process.children(recursive=True)):
                (group / "cgroup.procs").write_text(str(one.pid))


def report(message: str) -> None:
    """Print a step of this long benchmark with the time."""
    print(f"  {time.strftime('%H:%M:%S')} {message}", flush=True)


if __name__ == "__main__":
    main()
