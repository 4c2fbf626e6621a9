"""What changes for those who ask the catalog when answers come from another version: its blast radius."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from jobs.database.images import count_roughly, select_random_images
from jobs.database.model_versions import ModelKind, read_live_model
from jobs.database.spaces import find_space

SAMPLE = 4_000
"""Images that are looked at: all of a small catalog; of a large one enough for shares to within two points."""


@dataclass(frozen=True)
class SwitchPreview:
    """The present version beside another one, on a random sample of the images in the bucket.

    ``answered`` images have an answer of the other version, which the others would be without until the next ingest.
    ``changed`` of the ``compared`` ones would change their category; labels stay. Vectors are not compared: every
    search may answer otherwise. ``new_texts`` are search texts that the other encoder has not embedded.
    """

    kind: ModelKind
    present_version_id: int | None
    other_version_id: int
    images: int
    sample: int
    answered: int
    compared: int
    changed: int
    new_texts: int


def preview_switch(connection: Connection, kind: ModelKind, other_version_id: int) -> SwitchPreview:
    """Compare the live version with another one."""
    live = read_live_model(connection, kind)
    present = live.model_version_id if live else None
    parameters = {"version": other_version_id, "present": present, "limit": SAMPLE}
    counts = (
        _compare_tags(connection, parameters)
        if kind == "classifier"
        else _count_vectors(connection, parameters, find_space(connection, other_version_id))
    )
    return SwitchPreview(
        kind=kind,
        present_version_id=present,
        other_version_id=other_version_id,
        images=count_roughly(connection, "images"),
        **counts,
    )


DRAWN = f"""
    WITH drawn AS MATERIALIZED (
        {select_random_images("i.image_id", "", "i.deleted_at IS NULL")}
    )
"""


def _compare_tags(connection: Connection, parameters: dict[str, Any]) -> dict[str, int]:
    statement = text(f"""
        {DRAWN}
        SELECT count(*) AS sample, count(other.image_id) AS answered,
               count(*) FILTER (WHERE present.category IS NOT NULL AND other.category IS NOT NULL) AS compared,
               count(*) FILTER (WHERE present.category <> other.category) AS changed, 0 AS new_texts
        FROM drawn
        LEFT JOIN catalog.image_tags other
               ON other.image_id = drawn.image_id AND other.classifier_version_id = :version
        LEFT JOIN catalog.image_tags present
               ON present.image_id = drawn.image_id AND present.classifier_version_id = :present
              AND NOT EXISTS (SELECT FROM catalog.labels l WHERE l.image_id = drawn.image_id)
    """)
    return dict(connection.execute(statement, parameters).one()._mapping)


def _count_vectors(connection: Connection, parameters: dict[str, Any], space_id: int | None) -> dict[str, int]:
    statement = text(f"""
        {DRAWN}
        SELECT count(*) AS sample, count(e.image_id) AS answered, 0 AS compared, 0 AS changed,
               (SELECT count(*) FROM catalog.text_queries t
                WHERE t.encoder_version_id = :present AND NOT EXISTS (
                    SELECT FROM catalog.text_queries n
                    WHERE n.encoder_version_id = :version AND n.query_text = t.query_text)) AS new_texts
        FROM drawn LEFT JOIN catalog.image_embeddings e ON e.image_id = drawn.image_id AND e.space_id = :space
    """)
    return dict(connection.execute(statement, parameters | {"space": space_id}).one()._mapping)
