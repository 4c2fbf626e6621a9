"""Queries for images that a person judges: suggested categories, who reviewed them, and other images of a product."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, text

from jobs.database.records import read_records


@dataclass(frozen=True)
class ImageChoices:
    """The live classifier's most likely categories of an image, and the person whose label applies, or None."""

    image_id: int
    suggestions: tuple[str, ...]
    reviewed_by: str | None


def read_choices(connection: Connection, image_ids: Sequence[int]) -> dict[int, ImageChoices]:
    """Return the choices of those images that are in the bucket and have a tag of the live classifier, by image id."""
    statement = text("""
        SELECT i.image_id,
               CASE t.top_3 WHEN '[]' THEN ARRAY[t.category]
                   ELSE ARRAY(SELECT jsonb_array_elements(t.top_3) ->> 'category') END AS suggestions,
               (SELECT l.labeled_by FROM catalog.labels l WHERE l.image_id = i.image_id
                ORDER BY l.label_id DESC LIMIT 1) AS reviewed_by
        FROM unnest(CAST(:ids AS bigint[])) AS shown (image_id)
        JOIN catalog.images i USING (image_id)
        JOIN catalog.image_tags t ON t.image_id = i.image_id AND t.classifier_version_id
            = (SELECT model_version_id FROM catalog.live_models WHERE kind = 'classifier')
        WHERE i.deleted_at IS NULL
    """)
    choices = read_records(connection.execute(statement, {"ids": list(image_ids)}), ImageChoices)
    return {one.image_id: one for one in choices}


@dataclass(frozen=True)
class SiblingImage:
    """Another image of a product, with its current category, or None if it has none."""

    image_id: int
    category: str | None


def list_siblings(connection: Connection, product_id: str, image_id: int, limit: int) -> tuple[SiblingImage, ...]:
    """Return the other images of a product that are in the bucket, by object key."""
    statement = text("""
        SELECT i.image_id, t.category
        FROM (
            SELECT image_id, object_key FROM catalog.images
            WHERE product_id = :product AND image_id <> :image AND deleted_at IS NULL
            ORDER BY object_key LIMIT :limit
        ) i LEFT JOIN catalog.current_image_tags t USING (image_id)
        ORDER BY i.object_key
    """)
    parameters = {"product": product_id, "image": image_id, "limit": limit}
    return tuple(read_records(connection.execute(statement, parameters), SiblingImage))
