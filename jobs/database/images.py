"""Photos of the catalog: listed, sampled at random, and with their live tags."""

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


@dataclass(frozen=True)
class LiveTag:
    """A live image whose category comes from a model; ``etag`` is that of the bucket's last listing."""

    image_id: int
    bucket: str
    object_key: str
    product_id: str
    etag: str
    category: str
    confidence: float


def sample_live_tags(connection: Connection, images: int) -> list[LiveTag]:
    """So many images, at random but always the same: by a hash of their keys. Humans' labels are left out."""
    statement = text("""
        SELECT t.image_id, t.bucket, t.object_key, t.product_id, i.etag, t.category, t.confidence
        FROM catalog.current_image_tags t JOIN catalog.images i USING (image_id)
        WHERE t.source = 'model' ORDER BY md5(t.object_key), t.image_id LIMIT :images
    """)
    return [LiveTag(*row) for row in connection.execute(statement, {"images": images})]


START = "(SELECT hashint8extended(CAST(:version AS bigint), 1))"
PLACE = "hashint8extended(i.image_id, 0)"
FIRST_PLACE, LAST_PLACE = -(2**63), 2**63 - 1


def select_random_images(columns: str, joins: str, condition: str, *, is_bounded: bool = False) -> str:
    """SQL for the first ``:limit`` images ``i`` on the circle of a ``:version``, from its start.

    ``segment`` and ``place`` say in which order. Bounded it ends, of segment 0 and 1, at ``:last_0`` and ``:last_1``.
    """
    bounds = [f"AND {PLACE} <= :last_{segment}" if is_bounded else "" for segment in (0, 1)]
    return f"""
        WITH first_segment AS MATERIALIZED (
            SELECT {columns}, 0 AS segment, {PLACE} AS place FROM catalog.images i {joins}
            WHERE {PLACE} >= {START} AND {condition} {bounds[0]} ORDER BY {PLACE} LIMIT :limit
        )
        SELECT * FROM first_segment
        UNION ALL
        (SELECT {columns}, 1 AS segment, {PLACE} AS place FROM catalog.images i {joins}
         WHERE {PLACE} < {START} AND {condition} {bounds[1]} ORDER BY {PLACE}
         LIMIT :limit - (SELECT count(*) FROM first_segment))
        LIMIT :limit -- says to the planner how few they are
    """


def count_roughly(connection: Connection, table: str) -> int:
    """The rows of one of our tables: exact up to 100,000, else what the planner reckons, which costs nothing."""
    reckoned = connection.execute(
        text("SELECT greatest(reltuples, 0)::bigint FROM pg_class WHERE oid = CAST(:name AS regclass)"),
        {"name": f"catalog.{table}"},
    ).scalar_one()
    if reckoned > 100_000:
        return int(reckoned)
    counted: int = connection.execute(
        text(f"SELECT count(*) FROM (SELECT FROM catalog.{table} LIMIT 100001) counted")
    ).scalar_one()
    return max(counted, int(reckoned)) if counted > 100_000 else counted
