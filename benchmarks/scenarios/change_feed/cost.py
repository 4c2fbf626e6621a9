"""Measure what the triggers of the feed cost the writes of a night."""

import statistics
import time
from collections.abc import Callable

from sqlalchemy import Connection, Engine, text

from benchmarks.results import Row
from fixtures.catalog_rows import promote_model

PRODUCTS = 20_000
IMAGES_PER_PRODUCT = 3
CHUNK = 256
CHUNKS = 40
ROUNDS = 5
TABLES = ("images", "product_tags")


def measure_cost(engine: Engine) -> list[Row]:
    """Return a row for each kind of write. Everything is rolled back after each measurement."""
    with engine.begin() as connection:
        classifier = promote_model(connection, "classifier")
        connection.execute(text(f"INSERT INTO catalog.products SELECT 'p' || n FROM generate_series(1, {PRODUCTS}) n"))
        add_images(connection, "old")
        connection.execute(
            text("""
                INSERT INTO catalog.product_tags
                SELECT product_id, :classifier, 'dress', 0.5, 3, false, '' FROM catalog.products
            """),
            {"classifier": classifier},
        )
    writes: dict[str, Callable[[Connection], object]] = {
        f"publish: {PRODUCTS:,} product tags change": change_tags,
        f"a chunk: {CHUNK} content hashes, mean of {CHUNKS}": write_chunks,
        f"discover: {PRODUCTS * IMAGES_PER_PRODUCT:,} new images of known products": lambda c: add_images(c, "new"),
        f"discover: {PRODUCTS * IMAGES_PER_PRODUCT:,} images vanish": delete_images,
    }
    milliseconds: dict[tuple[str, bool], list[float]] = {}
    for _ in range(ROUNDS):
        for name, write in writes.items():
            for is_fed in (False, True):
                milliseconds.setdefault((name, is_fed), []).append(measure(engine, write, is_fed=is_fed))
    per_chunk = {name: CHUNKS if name.startswith("a chunk") else 1 for name in writes}
    return [
        {
            "what": name,
            "without the feed": round(statistics.median(milliseconds[name, False]) / per_chunk[name], 1),
            "with the feed": round(statistics.median(milliseconds[name, True]) / per_chunk[name], 1),
        }
        for name in writes
    ]


def measure(engine: Engine, write: Callable[[Connection], object], *, is_fed: bool) -> float:
    """Return the milliseconds of a write, with or without the triggers of the feed."""
    with engine.connect() as connection:
        if not is_fed:
            for table in TABLES:
                connection.execute(text(f"ALTER TABLE catalog.{table} DISABLE TRIGGER USER"))
        started = time.perf_counter()
        write(connection)
        seconds = time.perf_counter() - started
        connection.rollback()
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE catalog.images, catalog.product_tags, catalog.changes"))
    return 1000 * seconds


def change_tags(connection: Connection) -> None:
    """Change every product tag, by the statement of `publish`."""
    connection.execute(
        text("""
            INSERT INTO catalog.product_tags
            SELECT product_id, classifier_version_id, 'hat', 0.9, images, false, 'new' FROM catalog.product_tags
            ON CONFLICT (product_id, classifier_version_id) DO UPDATE
            SET category = excluded.category, confidence = excluded.confidence, images = excluded.images,
                images_disagree = excluded.images_disagree, fused_from = excluded.fused_from, tagged_at = now()
        """)
    )


def write_chunks(connection: Connection) -> None:
    """Store the content hashes of chunks of images."""
    statement = text("""
        UPDATE catalog.images SET content_hash = sha256('x'), width = 10, height = 10
        WHERE image_id >= :first AND image_id < :first + :chunk
    """)
    first = connection.scalar(text("SELECT min(image_id) FROM catalog.images"))
    for number in range(CHUNKS):
        connection.execute(statement, {"first": first + number * CHUNK, "chunk": CHUNK})


def add_images(connection: Connection, prefix: str) -> None:
    """Insert images of all products."""
    connection.execute(
        text("""
            INSERT INTO catalog.images (bucket, object_key, product_id, etag, size_bytes)
            SELECT 'shop', :prefix || '/' || product_id || '_' || n, product_id, 'etag', 1
            FROM catalog.products CROSS JOIN generate_series(1, :images) n
        """),
        {"prefix": prefix, "images": IMAGES_PER_PRODUCT},
    )


def delete_images(connection: Connection) -> None:
    """Mark all images as deleted."""
    connection.execute(text("UPDATE catalog.images SET deleted_at = now()"))
