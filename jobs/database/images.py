"""Queries on ``products`` and ``images``: what the bucket lists, compared with what the catalog knows.

The comparison is made by the database on temporary tables, so that a listing of any length passes through
the job a page at a time. Images that did not change are read and never written, not even locked.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, text

from jobs.database.binary_copy import copy_rows, encode_bigints, encode_texts


@dataclass(frozen=True)
class ListedImage:
    """One image as the bucket lists it."""

    object_key: str
    etag: str
    size_bytes: int
    product_id: str


@dataclass(frozen=True)
class ProductText:
    """What the shop's products file says of a product; None where it has no such column."""

    product_id: str
    display_name: str | None
    description: str | None
    shop_category: str | None


@dataclass(frozen=True)
class Discovery:
    """How the listing differs from the catalog, in images.

    ``restored`` were missing before and are back; ``known`` is the number that the catalog held as present.
    """

    new: int
    changed: int
    restored: int
    unchanged: int
    vanished: int
    known: int


def stage_listing(connection: Connection, pages: Iterable[Sequence[ListedImage]]) -> None:
    """Copy a listing into the temporary table ``listed``, which lives until the transaction ends."""
    # No index: whole tables are joined without any.
    connection.execute(
        text("""
            CREATE TEMPORARY TABLE listed (object_key text, etag text, size_bytes bigint, product_id text)
            ON COMMIT DROP
        """)
    )
    for page in pages:
        columns = {
            "object_key": encode_texts(image.object_key for image in page),
            "etag": encode_texts(image.etag for image in page),
            "size_bytes": encode_bigints(image.size_bytes for image in page),
            "product_id": encode_texts(image.product_id for image in page),
        }
        copy_rows(connection, "listed", columns)
    # Some servers list an object twice, perhaps with other bytes that arrived between two pages: the later line counts.
    connection.execute(
        text("""
            DELETE FROM listed l USING (
                SELECT object_key, max(ctid) AS latest FROM listed GROUP BY object_key HAVING count(*) > 1
            ) twice
            WHERE l.object_key = twice.object_key AND l.ctid <> twice.latest
        """)
    )
    connection.execute(text("ANALYZE listed"))


def compare_listing(connection: Connection, bucket: str, prefix: str) -> Discovery:
    """Count the differences between the staged listing and the images known under a prefix."""
    statement = text("""
        SELECT count(*) FILTER (WHERE i.image_id IS NULL) AS new,
               count(*) FILTER (WHERE i.deleted_at IS NULL AND (i.etag, i.size_bytes) <> (l.etag, l.size_bytes))
                   AS changed,
               count(*) FILTER (WHERE i.deleted_at IS NOT NULL AND l.object_key IS NOT NULL) AS restored,
               count(*) FILTER (WHERE i.deleted_at IS NULL AND (i.etag, i.size_bytes) = (l.etag, l.size_bytes))
                   AS unchanged,
               count(*) FILTER (WHERE i.deleted_at IS NULL AND i.image_id IS NOT NULL AND l.object_key IS NULL)
                   AS vanished,
               count(*) FILTER (WHERE i.deleted_at IS NULL AND i.image_id IS NOT NULL) AS known
        FROM listed l
        FULL JOIN (
            SELECT * FROM catalog.images WHERE bucket = :bucket AND starts_with(object_key, :prefix)
        ) i USING (object_key)
    """)
    return Discovery(**connection.execute(statement, {"bucket": bucket, "prefix": prefix}).one()._mapping)


def record_listing(connection: Connection, bucket: str, prefix: str) -> None:
    """Bring ``products`` and ``images`` in line with the staged listing.

    Bytes that changed lose their content hash, which is what makes them due for tagging.
    """
    place = {"bucket": bucket, "prefix": prefix}
    connection.execute(
        text("""
            CREATE TEMPORARY TABLE differing ON COMMIT DROP AS
            SELECT l.* FROM listed l
            LEFT JOIN catalog.images i ON i.bucket = :bucket AND i.object_key = l.object_key
            WHERE i.image_id IS NULL OR i.deleted_at IS NOT NULL
               OR (i.etag, i.size_bytes, i.product_id) <> (l.etag, l.size_bytes, l.product_id)
        """),
        place,
    )
    connection.execute(
        text("""
            INSERT INTO catalog.products (product_id) SELECT DISTINCT product_id FROM differing
            ON CONFLICT DO NOTHING
        """)
    )
    connection.execute(
        text("""
            INSERT INTO catalog.images AS i (bucket, object_key, product_id, etag, size_bytes)
            SELECT :bucket, object_key, product_id, etag, size_bytes FROM differing ORDER BY object_key
            ON CONFLICT (bucket, object_key) DO UPDATE
            SET etag = excluded.etag, size_bytes = excluded.size_bytes, product_id = excluded.product_id,
                deleted_at = NULL,
                content_hash = CASE WHEN (i.etag, i.size_bytes) = (excluded.etag, excluded.size_bytes)
                                    THEN i.content_hash END
        """),
        place,
    )
    connection.execute(
        text("""
            UPDATE catalog.images i SET deleted_at = now()
            WHERE bucket = :bucket AND starts_with(object_key, :prefix) AND deleted_at IS NULL
              AND NOT EXISTS (SELECT FROM listed l WHERE l.object_key = i.object_key)
        """),
        place,
    )


def record_product_texts(connection: Connection, products: Sequence[ProductText]) -> None:
    """Store what the products file says; products that it does not name keep their texts."""
    connection.execute(
        text("""
            UPDATE catalog.products p
            SET display_name = coalesce(t.display_name, p.display_name),
                description = coalesce(t.description, p.description),
                shop_category = coalesce(t.shop_category, p.shop_category), updated_at = now()
            FROM unnest(CAST(:ids AS text[]), CAST(:names AS text[]), CAST(:descriptions AS text[]),
                        CAST(:categories AS text[])) AS t (product_id, display_name, description, shop_category)
            WHERE p.product_id = t.product_id
              AND ((p.display_name IS DISTINCT FROM t.display_name AND t.display_name IS NOT NULL)
                OR (p.description IS DISTINCT FROM t.description AND t.description IS NOT NULL)
                OR (p.shop_category IS DISTINCT FROM t.shop_category AND t.shop_category IS NOT NULL))
        """),
        {
            "ids": [product.product_id for product in products],
            "names": [product.display_name for product in products],
            "descriptions": [product.description for product in products],
            "categories": [product.shop_category for product in products],
        },
    )
