"""Queries on products: their tags, their history for the pages, and the categories that occur."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Connection, text

from jobs.alternatives import name_alternatives
from jobs.database.records import read_record, read_records
from jobs.errors import NotFoundError

MAX_IMAGES = 100
MAX_TAGS = 500
PRODUCTS_COMPARED = 200
MAX_COMMON_START = 40
"""Limits of the search for products whose ids are similar to one that does not exist."""


def list_categories(connection: Connection) -> tuple[str, ...]:
    """Return the categories of the live classifier and of all labels, in alphabetical order."""
    statement = text("""
        WITH RECURSIVE given AS (
            (SELECT category FROM catalog.labels ORDER BY category LIMIT 1)
            UNION ALL
            SELECT (SELECT l.category FROM catalog.labels l WHERE l.category > g.category ORDER BY l.category LIMIT 1)
            FROM given g WHERE g.category IS NOT NULL
        )
        SELECT unnest(categories) AS category FROM catalog.live_models WHERE kind = 'classifier'
        UNION
        SELECT category FROM given WHERE category IS NOT NULL
        ORDER BY category
    """)
    return tuple(connection.execute(statement).scalars())


def require_category(connection: Connection, category: str) -> None:
    """Check that images can have a category.

    Raises:
        NotFoundError: it is neither a category of the live classifier nor that of a label.
    """
    categories = list_categories(connection)
    if category not in categories:
        raise NotFoundError(f"there is no category {category!r}. {name_alternatives(category, categories)}")


def require_product(connection: Connection, product_id: str) -> None:
    """Check that a product exists.

    Raises:
        NotFoundError: it does not. The message names products whose ids start alike.
    """
    statement = text("SELECT EXISTS (SELECT FROM catalog.products WHERE product_id = :product)")
    if not connection.scalar(statement, {"product": product_id}):
        raise NotFoundError(f"there is no product {product_id!r}. {_name_products(connection, product_id)}")


def _name_products(connection: Connection, wanted: str) -> str:
    """Return ids of products with the longest common start, as the end of an error message."""
    statement = text("SELECT product_id FROM catalog.products WHERE product_id ^@ :start LIMIT :size")
    for length in range(min(len(wanted), MAX_COMMON_START), -1, -1):
        ids = connection.execute(statement, {"start": wanted[:length], "size": PRODUCTS_COMPARED}).scalars().all()
        if ids:
            return name_alternatives(wanted, ids)
    return "There are no products yet"


def choose_example_product(connection: Connection) -> str | None:
    """Return the first product with vectors, preferably one with several images, or None if no image has a vector."""
    statement = text("""
        SELECT product_id FROM catalog.images i
        WHERE deleted_at IS NULL AND EXISTS (SELECT FROM catalog.image_embeddings e WHERE e.image_id = i.image_id)
        GROUP BY product_id ORDER BY count(*) > 1 DESC, product_id LIMIT 1
    """)
    product_id: str | None = connection.scalar(statement)
    return product_id


@dataclass(frozen=True)
class ProductImage:
    """An image with its current tag. ``top_3`` comes from the live classifier, even if a label overrides its tag."""

    image_id: int
    object_key: str
    size_bytes: int
    width: int | None
    height: int | None
    first_seen_at: datetime
    deleted_at: datetime | None
    category: str | None
    confidence: float | None
    source: Literal["model", "human"] | None
    top_3: list[dict[str, Any]] | None
    failure_reason: str | None


@dataclass(frozen=True)
class PastTag:
    """A tag or label that an image got at some time. A label has no ``classifier_version_id``."""

    image_id: int
    category: str
    confidence: float
    classifier_version_id: int | None
    labeled_by: str | None
    tagged_at: datetime
    is_current: bool


@dataclass(frozen=True)
class Product:
    """A product with its current tag."""

    product_id: str
    display_name: str | None
    description: str | None
    shop_category: str | None
    category: str | None
    confidence: float | None
    source: Literal["model", "human"] | None
    images_disagree: bool


@dataclass(frozen=True)
class ProductDetails(Product):
    """A product with its first `MAX_IMAGES` images by object key, and its latest `MAX_TAGS` tags and labels."""

    images: tuple[ProductImage, ...]
    tags: tuple[PastTag, ...]


def read_product(connection: Connection, product_id: str) -> ProductDetails | None:
    """Return a product, or None if it does not exist."""
    parameters = {"product": product_id, "images": MAX_IMAGES, "tags": MAX_TAGS}
    product = read_record(connection.execute(text(PRODUCT), parameters), Product)
    if product is None:
        return None
    return ProductDetails(
        **vars(product),
        images=tuple(read_records(connection.execute(text(IMAGES), parameters), ProductImage)),
        tags=tuple(read_records(connection.execute(text(TAGS), parameters), PastTag)),
    )


PRODUCT = """
    SELECT p.product_id, p.display_name, p.description, p.shop_category, t.category, t.confidence, t.source,
           coalesce(t.images_disagree, false) AS images_disagree
    FROM catalog.products p
    LEFT JOIN catalog.current_product_tags t USING (product_id)
    WHERE p.product_id = :product
"""
# The view current_image_tags is not used, because it omits deleted images.
IMAGES = """
    SELECT i.image_id, i.object_key, i.size_bytes, i.width, i.height, i.first_seen_at, i.deleted_at,
           coalesce(l.category, t.category) AS category,
           CASE WHEN l.category IS NULL THEN t.confidence ELSE 1 END AS confidence,
           CASE WHEN l.category IS NOT NULL THEN 'human' WHEN t.category IS NOT NULL THEN 'model' END AS source,
           t.top_3, f.reason AS failure_reason
    FROM catalog.images i
    LEFT JOIN catalog.image_tags t ON t.image_id = i.image_id AND t.classifier_version_id
        = (SELECT model_version_id FROM catalog.live_models WHERE kind = 'classifier')
    LEFT JOIN LATERAL (
        SELECT category FROM catalog.labels WHERE image_id = i.image_id ORDER BY label_id DESC LIMIT 1
    ) l ON true
    LEFT JOIN catalog.item_failures f ON f.image_id = i.image_id AND f.resolved_at IS NULL
    WHERE i.product_id = :product
    ORDER BY i.deleted_at IS NOT NULL, i.object_key LIMIT :images
"""
TAGS = """
    SELECT a.* FROM (
        SELECT t.image_id, t.category, t.confidence, t.classifier_version_id, CAST(NULL AS text) AS labeled_by,
               t.tagged_at,
               t.classifier_version_id = (SELECT model_version_id FROM catalog.live_models WHERE kind = 'classifier')
                   AS is_current
        FROM catalog.images i JOIN catalog.image_tags t USING (image_id) WHERE i.product_id = :product
        UNION ALL
        SELECT l.image_id, l.category, 1, NULL, l.labeled_by, l.labeled_at,
               NOT EXISTS (SELECT FROM catalog.labels n WHERE n.image_id = l.image_id AND n.label_id > l.label_id)
        FROM catalog.images i JOIN catalog.labels l USING (image_id) WHERE i.product_id = :product
    ) a
    ORDER BY a.tagged_at DESC, a.image_id LIMIT :tags
"""


def renew_product_tags(connection: Connection, classifier_version_id: int) -> int:
    """Update the tags of all products whose images, or their tags, have changed. Return the number of these products.

    The probabilities of a product are the mean of its images' probabilities (a linear opinion pool). If probabilities
    were multiplied instead, one bad image could veto what the others agree on.
    """
    parameters = {"classifier": classifier_version_id}
    connection.execute(
        text("""
            CREATE TEMPORARY TABLE stale_products ON COMMIT DROP AS
            SELECT product_id, images.fused_from, images.fused_from IS NULL AS is_gone
            FROM (
                SELECT i.product_id, md5(string_agg(i.image_id || ' ' || extract(epoch FROM t.tagged_at), ','
                                                    ORDER BY i.image_id)) AS fused_from
                FROM catalog.image_tags t JOIN catalog.images i USING (image_id)
                WHERE t.classifier_version_id = :classifier AND i.deleted_at IS NULL
                GROUP BY i.product_id
            ) images
            FULL JOIN (SELECT * FROM catalog.product_tags WHERE classifier_version_id = :classifier) known
                USING (product_id)
            WHERE known.fused_from IS DISTINCT FROM images.fused_from
        """),
        parameters,
    )
    connection.execute(
        text("""
            DELETE FROM catalog.product_tags t USING stale_products s
            WHERE t.product_id = s.product_id AND s.is_gone AND t.classifier_version_id = :classifier
        """),
        parameters,
    )
    connection.execute(text(FUSE), parameters)
    renewed: int = connection.execute(text("SELECT count(*) FROM stale_products")).scalar_one()
    return renewed


FUSE = """
    INSERT INTO catalog.product_tags (product_id, classifier_version_id, category, confidence, images, images_disagree,
                                      fused_from)
    SELECT DISTINCT ON (fused.product_id) fused.product_id, :classifier, v.categories[fused.output],
           least(fused.probability, 1), counted.images, counted.images_disagree, s.fused_from
    FROM (
        SELECT i.product_id, p.output, avg(p.probability) AS probability
        FROM catalog.image_tags t
        JOIN catalog.images i USING (image_id)
        JOIN stale_products s ON s.product_id = i.product_id
        CROSS JOIN LATERAL unnest(t.probabilities) WITH ORDINALITY AS p (probability, output)
        WHERE t.classifier_version_id = :classifier AND i.deleted_at IS NULL
        GROUP BY i.product_id, p.output
    ) fused
    JOIN (
        SELECT i.product_id, count(*) AS images, count(DISTINCT t.category) > 1 AS images_disagree
        FROM catalog.image_tags t
        JOIN catalog.images i USING (image_id)
        JOIN stale_products s ON s.product_id = i.product_id
        WHERE t.classifier_version_id = :classifier AND i.deleted_at IS NULL
        GROUP BY i.product_id
    ) counted USING (product_id)
    JOIN stale_products s USING (product_id)
    JOIN catalog.model_versions v ON v.model_version_id = :classifier
    ORDER BY fused.product_id, fused.probability DESC, fused.output
    ON CONFLICT (product_id, classifier_version_id) DO UPDATE
    SET category = excluded.category, confidence = excluded.confidence, images = excluded.images,
        images_disagree = excluded.images_disagree, fused_from = excluded.fused_from, tagged_at = now()
"""
