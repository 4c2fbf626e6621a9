"""Queries on ``drift_references``: what a classifier's answers looked like when it was accepted."""

import json
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Connection, text

MeasuredOn = Literal["test", "catalog"]


@dataclass(frozen=True)
class DriftReference:
    """Answers, counted by category and in ten bins of confidence of equal width, from 0 to 1."""

    category_counts: dict[str, int]
    confidence_counts: list[int]


def upsert_drift_reference(
    connection: Connection, classifier_version_id: int, reference: DriftReference, measured_on: MeasuredOn
) -> None:
    """Store what a classifier's answers are compared with; what was measured on the catalog outlives test images."""
    connection.execute(
        text("""
            INSERT INTO catalog.drift_references AS r
                (classifier_version_id, category_counts, confidence_counts, measured_on)
            VALUES (:version, :categories, :confidences, :measured_on)
            ON CONFLICT (classifier_version_id) DO UPDATE
            SET category_counts = excluded.category_counts, confidence_counts = excluded.confidence_counts,
                measured_on = excluded.measured_on, measured_at = now()
            WHERE excluded.measured_on = 'catalog' OR r.measured_on = 'test'
        """),
        {
            "version": classifier_version_id,
            "categories": json.dumps(reference.category_counts),
            "confidences": json.dumps(reference.confidence_counts),
            "measured_on": measured_on,
        },
    )


def read_drift_reference(connection: Connection, classifier_version_id: int) -> DriftReference | None:
    """What a classifier's answers are compared with, or None if it was never measured."""
    statement = text("""
        SELECT category_counts, confidence_counts FROM catalog.drift_references WHERE classifier_version_id = :version
    """)
    row = connection.execute(statement, {"version": classifier_version_id}).one_or_none()
    return DriftReference(row.category_counts, row.confidence_counts) if row else None
