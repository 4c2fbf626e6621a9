"""Read what the catalog says about all products, or about those that changed since a cursor, in one snapshot."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, Engine, text

from jobs.database.changes import START, Cursor, read_end, require_complete

BATCH = 1000


@dataclass(frozen=True)
class ProductRow:
    """What the catalog says about a product. If ``is_deleted``, it says nothing (any more).

    ``source`` is model or human; a label of a human has no ``classifier_version_id``. ``vector`` is the mean of the
    vectors of the product's images in the live space, or None if there is none or it was not wanted.
    """

    product_id: str
    is_deleted: bool
    category: str | None
    confidence: float | None
    images: int | None
    images_disagree: bool | None
    source: str | None
    classifier_version_id: int | None
    tagged_at: datetime | None
    vector: list[float] | None


@dataclass(frozen=True)
class ProductSnapshot:
    """Products in batches, sorted by id, and the cursor from which the feed continues."""

    cursor: Cursor
    batches: Iterator[Sequence[ProductRow]]


@contextmanager
def open_snapshot(engine: Engine, since: Cursor | None, *, with_vectors: bool) -> Iterator[ProductSnapshot]:
    """Yield a snapshot of all products that something is said about. With ``since``, of all that changed after it.

    Raises:
        RefusedError: the feed no longer has all changes since then.
    """
    with engine.connect() as connection, connection.begin():
        connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        cursor = read_end(connection)
        if since is not None:
            require_complete(connection, since)
        parameters = {**(since or START).parameters, "is_full": since is None, "vectors": with_vectors}
        yield ProductSnapshot(cursor, _stream(connection, parameters))


def _stream(connection: Connection, parameters: Mapping[str, object]) -> Iterator[Sequence[ProductRow]]:
    rows = connection.execute(text(PRODUCTS), parameters, execution_options={"yield_per": BATCH})
    # Without a size, it would fetch all rows at once.
    for partition in rows.partitions(BATCH):
        yield [ProductRow(*row) for row in partition]


# A switch concerns all products. A product that was erased is only in the changes.
PRODUCTS = """
    WITH later AS (
        SELECT product_id, kind FROM catalog.changes WHERE (transaction_id, change_id) > (:transaction, :change)
    ), chosen AS (
        SELECT product_id FROM later WHERE NOT :is_full AND product_id IS NOT NULL
        UNION
        SELECT product_id FROM catalog.products WHERE :is_full OR EXISTS (
            SELECT FROM later WHERE kind = 'classifier_switch' OR (:vectors AND kind = 'encoder_switch')
        )
    )
    SELECT c.product_id, s.category IS NULL AS is_deleted, s.category, s.confidence, s.images, s.images_disagree,
           s.source, s.classifier_version_id, s.tagged_at,
           CASE WHEN :vectors AND s.category IS NOT NULL THEN (
               SELECT CAST(avg(e.embedding) AS real[])
               FROM catalog.images i JOIN catalog.image_embeddings e USING (image_id)
               WHERE i.product_id = c.product_id AND i.deleted_at IS NULL AND e.space_id = catalog.live_space()
           ) END AS vector
    FROM chosen c LEFT JOIN catalog.current_product_tags s USING (product_id)
    WHERE s.category IS NOT NULL OR NOT :is_full
    ORDER BY c.product_id
"""
