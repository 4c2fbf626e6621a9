"""List the runs and classifiers whose tags the image grid can show."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

from jobs.database.records import read_records

RUNS_LISTED = 30


@dataclass(frozen=True)
class RunChoice:
    """A run that can be selected."""

    run_id: str
    purpose: str
    started_at: datetime


@dataclass(frozen=True)
class ClassifierChoice:
    """A classifier that has tagged images."""

    model_version_id: int
    is_champion: bool
    is_live: bool


def list_run_choices(connection: Connection, chosen: str | None) -> list[RunChoice]:
    """List the latest runs with a classifier and at least one image, and the chosen run, newest first."""
    statement = text("""
        SELECT run_id, purpose, started_at FROM (
            (SELECT run_id, purpose, started_at FROM catalog.tagging_runs
             WHERE entries > 0 AND classifier_version_id IS NOT NULL ORDER BY started_at DESC LIMIT :size)
            UNION
            SELECT run_id, purpose, started_at FROM catalog.tagging_runs WHERE run_id = :chosen
        ) runs
        ORDER BY started_at DESC, run_id
    """)
    return list(read_records(connection.execute(statement, {"size": RUNS_LISTED, "chosen": chosen}), RunChoice))


def list_classifier_choices(connection: Connection) -> list[ClassifierChoice]:
    """List the classifiers that have tagged images, newest first."""
    statement = text("""
        SELECT v.model_version_id, coalesce(c.model_version_id = v.model_version_id, false) AS is_champion,
               coalesce(l.model_version_id = v.model_version_id, false) AS is_live
        FROM catalog.model_versions v
        LEFT JOIN catalog.champion_models c USING (kind)
        LEFT JOIN catalog.live_models l USING (kind)
        WHERE v.kind = 'classifier'
          AND EXISTS (SELECT FROM catalog.image_tags t WHERE t.classifier_version_id = v.model_version_id)
        ORDER BY v.model_version_id DESC
    """)
    return list(read_records(connection.execute(statement), ClassifierChoice))
