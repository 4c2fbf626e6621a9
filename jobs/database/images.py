"""Queries on ``images``: record a listing of the bucket, look up images, and sample images at random."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    CompoundSelect,
    Connection,
    FromClause,
    Select,
    TableClause,
    cast,
    false,
    func,
    literal,
    select,
    text,
    union_all,
)

from jobs.database.binary_copy import copy_rows, encode_bigints, encode_texts
from jobs.database.records import read_record, read_records
from jobs.database.tables import images


@dataclass(frozen=True)
class ListedImage:
    """An image as the bucket lists it."""

    object_key: str
    etag: str
    size_bytes: int
    product_id: str


@dataclass(frozen=True)
class ListingScope:
    """What a listing covers: the keys under a prefix of a bucket, or only ``keys``.

    ``as_of`` is its time, by default the start of the transaction. It does not change images that were observed later.
    """

    bucket: str
    prefix: str
    as_of: datetime | None = None
    keys: tuple[str, ...] | None = None


@dataclass(frozen=True)
class ProductText:
    """The texts of a product in the shop's products file. A field is None if the file lacks the column."""

    product_id: str
    display_name: str | None
    description: str | None
    shop_category: str | None


@dataclass(frozen=True)
class Discovery:
    """The differences between a listing and the catalog, in numbers of images.

    ``restored`` images were deleted and are back. ``known`` counts the images that were in the bucket before.
    """

    new: int
    changed: int
    restored: int
    unchanged: int
    vanished: int
    known: int


def stage_listing(connection: Connection, pages: Iterable[Sequence[ListedImage]]) -> None:
    """Copy a listing into the temporary table ``listed``, which exists until the transaction ends."""
    # An index would not help, because the queries join whole tables.
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
    # Some servers list an object twice, even with other bytes that arrived between two pages. The later line counts.
    connection.execute(
        text("""
            DELETE FROM listed l USING (
                SELECT object_key, max(ctid) AS latest FROM listed GROUP BY object_key HAVING count(*) > 1
            ) twice
            WHERE l.object_key = twice.object_key AND l.ctid <> twice.latest
        """)
    )
    connection.execute(text("ANALYZE listed"))


def compare_listing(connection: Connection, scope: ListingScope) -> Discovery:
    """Count the differences between the staged listing and the catalog's images in its scope.

    Images that were observed after the listing count as unchanged.
    """
    statement = text("""
        SELECT count(*) FILTER (WHERE i.image_id IS NULL) AS new,
               count(*) FILTER (WHERE i.is_older AND i.deleted_at IS NULL
                                  AND (i.etag, i.size_bytes) <> (l.etag, l.size_bytes)) AS changed,
               count(*) FILTER (WHERE i.is_older AND i.deleted_at IS NOT NULL AND l.object_key IS NOT NULL)
                   AS restored,
               count(*) FILTER (WHERE i.deleted_at IS NULL
                                  AND (NOT i.is_older OR (i.etag, i.size_bytes) = (l.etag, l.size_bytes)))
                   AS unchanged,
               count(*) FILTER (WHERE i.is_older AND i.deleted_at IS NULL AND l.object_key IS NULL) AS vanished,
               count(*) FILTER (WHERE i.deleted_at IS NULL AND i.image_id IS NOT NULL) AS known
        FROM listed l
        FULL JOIN (
            SELECT *, observed_at <= :as_of AS is_older FROM catalog.images
            WHERE bucket = :bucket AND starts_with(object_key, :prefix)
              AND (CAST(:keys AS text[]) IS NULL OR object_key = ANY (CAST(:keys AS text[])))
        ) i USING (object_key)
    """)
    (discovery,) = read_records(connection.execute(statement, _make_parameters(connection, scope)), Discovery)
    return discovery


def record_listing(connection: Connection, scope: ListingScope) -> None:
    """Update ``products`` and ``images`` to the staged listing.

    An image whose bytes changed loses its content hash, which makes it due for tagging.
    """
    parameters = _make_parameters(connection, scope)
    connection.execute(
        text("""
            CREATE TEMPORARY TABLE differing ON COMMIT DROP AS
            SELECT l.* FROM listed l
            LEFT JOIN catalog.images i ON i.bucket = :bucket AND i.object_key = l.object_key
            WHERE i.image_id IS NULL OR i.deleted_at IS NOT NULL
               OR (i.etag, i.size_bytes, i.product_id) <> (l.etag, l.size_bytes, l.product_id)
        """),
        parameters,
    )
    connection.execute(
        text("""
            INSERT INTO catalog.products (product_id) SELECT DISTINCT product_id FROM differing
            ON CONFLICT DO NOTHING
        """)
    )
    connection.execute(
        text("""
            INSERT INTO catalog.images AS i (bucket, object_key, product_id, etag, size_bytes, observed_at)
            SELECT :bucket, object_key, product_id, etag, size_bytes, :as_of FROM differing ORDER BY object_key
            ON CONFLICT (bucket, object_key) DO UPDATE
            SET etag = excluded.etag, size_bytes = excluded.size_bytes, product_id = excluded.product_id,
                deleted_at = NULL, observed_at = excluded.observed_at,
                content_hash = CASE WHEN (i.etag, i.size_bytes) = (excluded.etag, excluded.size_bytes)
                                    THEN i.content_hash END
            WHERE i.observed_at <= excluded.observed_at
        """),
        parameters,
    )
    connection.execute(
        text("""
            UPDATE catalog.images i SET deleted_at = now(), observed_at = :as_of
            WHERE bucket = :bucket AND starts_with(object_key, :prefix)
              AND (CAST(:keys AS text[]) IS NULL OR object_key = ANY (CAST(:keys AS text[])))
              AND deleted_at IS NULL AND observed_at <= :as_of
              AND NOT EXISTS (SELECT FROM listed l WHERE l.object_key = i.object_key)
        """),
        parameters,
    )


def _make_parameters(connection: Connection, scope: ListingScope) -> dict[str, Any]:
    as_of = scope.as_of or connection.scalar(select(func.now()))
    return {**vars(scope), "as_of": as_of, "keys": None if scope.keys is None else list(scope.keys)}


def record_product_texts(connection: Connection, products: Sequence[ProductText]) -> None:
    """Store texts from the products file. Products that are not in the file keep their texts."""
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
    """An image in the bucket with a tag of the live classifier. ``etag`` comes from the latest listing."""

    image_id: int
    bucket: str
    object_key: str
    product_id: str
    etag: str
    category: str
    confidence: float


def sample_live_tags(connection: Connection, size: int) -> list[LiveTag]:
    """Return a random sample of the images with a tag of a model. A hash of the keys makes it repeatable."""
    statement = text("""
        SELECT t.image_id, t.bucket, t.object_key, t.product_id, i.etag, t.category, t.confidence
        FROM catalog.current_image_tags t JOIN catalog.images i USING (image_id)
        WHERE t.source = 'model' ORDER BY md5(t.object_key), t.image_id LIMIT :size
    """)
    return list(read_records(connection.execute(statement, {"size": size}), LiveTag))


@dataclass(frozen=True)
class ImageObject:
    """The object of an image, as last listed. For a deleted image the object may still exist."""

    product_id: str
    bucket: str
    object_key: str
    etag: str
    size_bytes: int
    is_deleted: bool


def find_image_object(connection: Connection, image_id: int) -> ImageObject | None:
    """Return the object of an image, or None if there is no such image."""
    statement = text("SELECT *, deleted_at IS NOT NULL AS is_deleted FROM catalog.images WHERE image_id = :image")
    return read_record(connection.execute(statement, {"image": image_id}), ImageObject)


def find_first_image(connection: Connection, product_id: str) -> int | None:
    """Return the first image of a product by object key, or None if the bucket has none."""
    statement = text("""
        SELECT image_id FROM catalog.images WHERE product_id = :product AND deleted_at IS NULL
        ORDER BY object_key LIMIT 1
    """)
    image_id: int | None = connection.scalar(statement, {"product": product_id})
    return image_id


@dataclass(frozen=True)
class RandomPlace:
    """The position of an image in the random order of a model version. Segment 0 comes before segment 1."""

    segment: int
    place: int


def select_random_images(
    model_version_id: int,
    limit: int,
    *columns: ColumnElement[Any],
    source: FromClause = images,
    where: ColumnElement[bool] | None = None,
    until: RandomPlace | None = None,
) -> CompoundSelect[Any]:
    """Select images in the bucket in a random order that is fixed for each model version. End at ``until`` if given.

    A hash of their ids places all images on a circle. The order goes once around the circle, and its start depends on
    the version. The index thus finds the first images without sorting all of them: segment 0 is the part from the
    start, segment 1 the rest. The result has ``columns``, ``segment`` and ``place``.
    """
    place = func.hashint8extended(images.c.image_id, 0)
    # A constant to the planner. It would read the whole table for a range whose start it does not know.
    start = func.hashint8extended(cast(model_version_id, BigInteger), 1)

    def select_segment(segment: int, is_inside: ColumnElement[bool]) -> Select[Any]:
        chosen = select(*columns, literal(segment).label("segment"), place.label("place")).select_from(source)
        chosen = chosen.where(is_inside, images.c.deleted_at.is_(None), *([] if where is None else [where]))
        chosen = chosen.order_by(place)
        if until is None or until.segment > segment:
            return chosen
        return chosen.where(place <= until.place if until.segment == segment else false())

    first = select_segment(0, place >= start).limit(limit).cte("first_segment").prefix_with("MATERIALIZED")
    rest = literal(limit) - select(func.count()).select_from(first).scalar_subquery()
    # The outer limit only tells the planner how few rows there are.
    return union_all(select(first), select_segment(1, place < start).limit(rest)).limit(limit)


def count_roughly(connection: Connection, counted: TableClause) -> int:
    """Return the number of rows in a table: exact up to 100,000, above that the planner's estimate, which is free."""
    estimate: int = connection.execute(
        text("SELECT greatest(reltuples, 0)::bigint FROM pg_class WHERE oid = CAST(:name AS regclass)"),
        {"name": counted.fullname},
    ).scalar_one()
    if estimate > 100_000:
        return estimate
    first_rows = select(literal(1)).select_from(counted).limit(100_001).subquery()
    number: int = connection.execute(select(func.count()).select_from(first_rows)).scalar_one()
    return max(number, estimate)
