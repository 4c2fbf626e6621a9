"""All that is known of one product."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Connection, text

MOST_PHOTOS = 100
MOST_ANSWERS = 500


@dataclass(frozen=True)
class ProductPhoto:
    """A photo with the tag in force; ``top_3`` are the live classifier's, also where a human said otherwise."""

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
class PastAnswer:
    """What a model or a human once said of a photo; without a version it was a human."""

    image_id: int
    category: str
    confidence: float
    classifier_version_id: int | None
    labelled_by: str | None
    answered_at: datetime
    is_live: bool


@dataclass(frozen=True)
class ProductDetails:
    """A product; its first `MOST_PHOTOS` photos by key, and its latest `MOST_ANSWERS` answers."""

    product_id: str
    display_name: str | None
    description: str | None
    shop_category: str | None
    category: str | None
    confidence: float | None
    source: Literal["model", "human"] | None
    photos_disagree: bool
    photos: tuple[ProductPhoto, ...]
    answers: tuple[PastAnswer, ...]


def read_product(connection: Connection, product_id: str) -> ProductDetails | None:
    """One product, or None if there is no such."""
    parameters = {"product": product_id, "photos": MOST_PHOTOS, "answers": MOST_ANSWERS}
    row = connection.execute(text(PRODUCT), parameters).one_or_none()
    if row is None:
        return None
    return ProductDetails(
        **row._mapping,
        photos=tuple(ProductPhoto(**photo._mapping) for photo in connection.execute(text(PHOTOS), parameters)),
        answers=tuple(PastAnswer(**answer._mapping) for answer in connection.execute(text(ANSWERS), parameters)),
    )


PRODUCT = """
    SELECT p.product_id, p.display_name, p.description, p.shop_category, t.category, t.confidence, t.source,
           coalesce(t.photos_disagree, false) AS photos_disagree
    FROM catalog.products p
    LEFT JOIN catalog.current_product_tags t USING (product_id)
    WHERE p.product_id = :product
"""

PHOTOS = """
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
    ORDER BY i.deleted_at IS NOT NULL, i.object_key LIMIT :photos
"""

ANSWERS = """
    SELECT a.* FROM (
        SELECT t.image_id, t.category, t.confidence, t.classifier_version_id, CAST(NULL AS text) AS labelled_by,
               t.tagged_at AS answered_at,
               t.classifier_version_id = (SELECT model_version_id FROM catalog.live_models WHERE kind = 'classifier')
                   AS is_live
        FROM catalog.images i JOIN catalog.image_tags t USING (image_id) WHERE i.product_id = :product
        UNION ALL
        SELECT l.image_id, l.category, 1, NULL, l.labelled_by, l.labelled_at,
               NOT EXISTS (SELECT FROM catalog.labels n WHERE n.image_id = l.image_id AND n.label_id > l.label_id)
        FROM catalog.images i JOIN catalog.labels l USING (image_id) WHERE i.product_id = :product
    ) a
    ORDER BY a.answered_at DESC, a.image_id LIMIT :answers
"""
