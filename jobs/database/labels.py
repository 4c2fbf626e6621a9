"""Queries on ``labels``: what people said of the catalog's own images, and which examples follow from it."""

from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import Connection, text

CATALOG_SOURCE = "catalog"
"""The source of the examples that are the catalog's own images."""

NOT_CLOTHING = "not clothing"
"""The label of a photo that shows no product. It is no category: nothing learns it. The views know the word too."""


@dataclass(frozen=True)
class DueLabel:
    """An image whose latest label no example says yet, as the bucket listed it and with its product's texts."""

    bucket: str
    object_key: str
    etag: str
    size_bytes: int
    product_id: str
    title: str
    description: str
    category: str


def stream_due_labels(connection: Connection) -> Iterator[DueLabel]:
    """Yield the labelled images that no example says as they are; its key is their bucket and key, joined by a slash.

    Images that are gone from the bucket, or whose bytes no run has read yet, are left out, and so is what is not
    clothing.
    """
    statement = text("""
        SELECT i.bucket, i.object_key, i.etag, i.size_bytes, i.product_id, l.category,
               coalesce(p.display_name, '') AS title, coalesce(p.description, '') AS description
        FROM (SELECT DISTINCT ON (image_id) image_id, category FROM catalog.labels ORDER BY image_id, label_id DESC) l
        JOIN catalog.images i USING (image_id)
        JOIN catalog.products p USING (product_id)
        LEFT JOIN catalog.examples e ON e.source = :source AND e.source_key = i.bucket || '/' || i.object_key
        WHERE i.deleted_at IS NULL AND i.content_hash IS NOT NULL AND l.category <> :not_clothing
          AND (e.content_hash, e.category, e.title, e.description, e.group_name) IS DISTINCT FROM
              (i.content_hash, l.category, coalesce(p.display_name, ''), coalesce(p.description, ''), i.product_id)
        ORDER BY i.bucket, i.object_key
    """)
    parameters = {"source": CATALOG_SOURCE, "not_clothing": NOT_CLOTHING}
    for row in connection.execute(statement, parameters, execution_options={"yield_per": 1000}):
        yield DueLabel(**row._mapping)


def prune_unlabelled_examples(connection: Connection) -> int:
    """Delete the examples of the catalog whose image has no label any more, or is not clothing; returns how many."""
    statement = text("""
        DELETE FROM catalog.examples e
        WHERE source = :source AND NOT EXISTS (
            SELECT FROM catalog.images i
            WHERE i.bucket || '/' || i.object_key = e.source_key AND :not_clothing <> (
                SELECT category FROM catalog.labels l WHERE l.image_id = i.image_id ORDER BY label_id DESC LIMIT 1
            )
        )
    """)
    return connection.execute(statement, {"source": CATALOG_SOURCE, "not_clothing": NOT_CLOTHING}).rowcount
