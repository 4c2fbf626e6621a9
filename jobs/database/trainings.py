"""Queries on ``trainings``: which candidate a run has trained."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from jobs.database.model_versions import ModelKind


@dataclass(frozen=True)
class Training:
    """A finished training."""

    run_id: str
    kind: ModelKind
    snapshot_id: str
    model_version_id: int
    settings: Mapping[str, Any]
    report: Mapping[str, Any]


def insert_training(connection: Connection, training: Training) -> None:
    """Record a training; a run that trained the same kind already keeps what it has."""
    connection.execute(
        text("""
            INSERT INTO catalog.trainings (run_id, kind, snapshot_id, model_version_id, settings, report)
            VALUES (:run, :kind, :snapshot, :version, :settings, :report) ON CONFLICT DO NOTHING
        """),
        {
            "run": training.run_id,
            "kind": training.kind,
            "snapshot": training.snapshot_id,
            "version": training.model_version_id,
            "settings": json.dumps(training.settings),
            "report": json.dumps(training.report),
        },
    )


def read_training(connection: Connection, run_id: str, kind: ModelKind) -> Training | None:
    """What a run has trained of a kind, or None."""
    statement = text("SELECT * FROM catalog.trainings WHERE run_id = :run AND kind = :kind")
    row = connection.execute(statement, {"run": run_id, "kind": kind}).one_or_none()
    if row is None:
        return None
    return Training(row.run_id, row.kind, row.snapshot_id, row.model_version_id, row.settings, row.report)
