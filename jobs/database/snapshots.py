"""Queries on ``dataset_snapshots`` and ``split_memory``."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Connection, text

RememberedSplit = Literal["train", "test"]


@dataclass(frozen=True)
class RegisteredSnapshot:
    """A data set in the artifacts."""

    snapshot_id: str
    artifact_uri: str
    report: dict[str, Any]
    created_at: datetime


def insert_snapshot(connection: Connection, snapshot_id: str, artifact_uri: str, report: Mapping[str, Any]) -> None:
    """Register a snapshot; the same rows a second time are the same snapshot, as old as it was."""
    connection.execute(
        text("""
            INSERT INTO catalog.dataset_snapshots (snapshot_id, artifact_uri, report)
            VALUES (:id, :uri, :report)
            ON CONFLICT (snapshot_id) DO UPDATE SET report = excluded.report
        """),
        {"id": snapshot_id, "uri": artifact_uri, "report": json.dumps(report)},
    )


def read_snapshot(connection: Connection, snapshot_id: str) -> RegisteredSnapshot | None:
    """A registered snapshot, or None."""
    statement = text("SELECT * FROM catalog.dataset_snapshots WHERE snapshot_id = :id")
    row = connection.execute(statement, {"id": snapshot_id}).one_or_none()
    return RegisteredSnapshot(row.snapshot_id, row.artifact_uri, row.report, row.created_at) if row else None


def lock_split_memory(connection: Connection) -> None:
    """Make other snapshots wait until the transaction ends, so that no two put a photo on different sides."""
    connection.execute(text("LOCK TABLE catalog.split_memory IN SHARE ROW EXCLUSIVE MODE"))


def read_split_memory(connection: Connection) -> dict[bytes, RememberedSplit]:
    """By content hash: test for each photo that was ever tested on, train for all others of earlier snapshots."""
    rows = connection.execute(text("SELECT content_hash, split FROM catalog.split_memory"))
    return {bytes(row.content_hash): row.split for row in rows}


def remember_splits(
    connection: Connection, snapshot_id: str, content_hashes: Sequence[bytes], split: RememberedSplit
) -> None:
    """Remember photos that a snapshot has on this side; what is in test once is in test forever."""
    connection.execute(
        text("""
            INSERT INTO catalog.split_memory AS m (content_hash, split, first_snapshot_id)
            SELECT h, :split, :snapshot FROM unnest(CAST(:hashes AS bytea[])) AS h
            ON CONFLICT (content_hash) DO UPDATE SET split = 'test' WHERE excluded.split = 'test' AND m.split <> 'test'
        """),
        {"split": split, "snapshot": snapshot_id, "hashes": list(content_hashes)},
    )
