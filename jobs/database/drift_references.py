"""Queries on ``drift_references``: what a classifier's answers looked like when it was accepted."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, text

from jobs.database.run_history import read_totals

MeasuredOn = Literal["test", "catalog"]
CONFIDENCE_BINS = 10


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


def settle_drift_reference(connection: Connection, classifier_version_id: int) -> None:
    """Have the catalog be the reference from now on, where test images were.

    What is labelled is seldom mixed like what is sold. A classifier without a retag, as the first is, would otherwise
    differ from its reference every night.
    """
    statement = text("SELECT measured_on FROM catalog.drift_references WHERE classifier_version_id = :version")
    if connection.execute(statement, {"version": classifier_version_id}).scalar_one_or_none() == "test":
        catalog = count_catalog_answers(connection, classifier_version_id)
        upsert_drift_reference(connection, classifier_version_id, catalog, "catalog")


def count_run_answers(connection: Connection, run_id: str) -> DriftReference:
    """What the classifier of a run answered in it, by the ledger; answers that were copied are left out."""
    totals = read_totals(connection, run_id)
    return _make_reference(totals.category_counts.items(), enumerate(totals.confidence_counts, start=1))


def count_catalog_answers(connection: Connection, classifier_version_id: int) -> DriftReference:
    """What a classifier says of all images in the bucket, whatever humans said of them."""
    categories = connection.execute(
        text(f"SELECT category, count(*) {CATALOG_ANSWERS} GROUP BY category ORDER BY category"),
        {"classifier": classifier_version_id},
    )
    confidences = connection.execute(
        text(f"SELECT least(width_bucket(confidence, 0, 1, 10), 10) AS bin, count(*) {CATALOG_ANSWERS} GROUP BY bin"),
        {"classifier": classifier_version_id},
    )
    return _make_reference(categories, confidences)


CATALOG_ANSWERS = """
    FROM catalog.image_tags t JOIN catalog.images i USING (image_id)
    WHERE t.classifier_version_id = :classifier AND i.deleted_at IS NULL
"""


def _make_reference(categories: Iterable[Any], confidences: Iterable[Any]) -> DriftReference:
    """From rows of (category, images) and of (number of the bin from 1, images)."""
    images_by_bin = {int(row[0]): int(row[1]) for row in confidences}
    return DriftReference(
        {row[0]: int(row[1]) for row in categories},
        [images_by_bin.get(number, 0) for number in range(1, CONFIDENCE_BINS + 1)],
    )
