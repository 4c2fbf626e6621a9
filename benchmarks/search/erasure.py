"""Measure what it costs to erase one image from a large catalog: deleting its rows, and rewriting the tables.

    python -m benchmarks.search.erasure --images 1000000

Searches wait while the table of the vectors is rewritten, which takes the longest.
"""

import argparse
import time

from sqlalchemy import Engine, text

from benchmarks.results import Row, publish
from benchmarks.search.generated_catalog import load_catalog, make_catalog
from benchmarks.search.recall import open_database
from jobs.database.erasure import delete_images, find_contents, find_images, rewrite_tables


def main() -> None:
    """Erase one image, and publish the times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000)
    arguments = parser.parse_args()
    catalog = make_catalog(arguments.images)
    with open_database() as engine:
        loaded = load_catalog(engine, catalog)
        deleting = _delete_one(engine)
        started = time.perf_counter()
        rewrite_tables(engine)
        rewriting = time.perf_counter() - started
    row: Row = {
        "images": len(catalog.vectors),
        "delete the rows, s": round(deleting, 2),
        "rewrite all tables, s": round(rewriting, 1),
        "first build of the vector index, s": loaded.index_seconds,
    }
    publish(
        "Erasure",
        "Time to erase one image from the database, with vectors of 512 dimensions. `catalog forget --no-rewrite` "
        "takes as long as deleting the rows; the rewrite can follow at night.",
        [row],
    )


def _delete_one(engine: Engine) -> float:
    with engine.connect() as connection:
        key = connection.execute(
            text("SELECT object_key FROM catalog.images ORDER BY image_id DESC LIMIT 1")
        ).scalar_one()
    started = time.perf_counter()
    with engine.begin() as connection:
        images = find_images(connection, key)
        delete_images(connection, images, sorted(find_contents(connection, images)))
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
