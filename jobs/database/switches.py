"""Switches: which version became live, and when."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from jobs.database.model_versions import ModelKind


@dataclass(frozen=True)
class Switch:
    """From which version to which; ``replaced_version_id`` is None for the first of a kind."""

    kind: ModelKind
    model_version_id: int
    replaced_version_id: int | None


def insert_switch(connection: Connection, switch: Switch, report: Mapping[str, Any] | None = None) -> None:
    """Have answers come from a version, from the caller's commit on; an encoder goes by `make_space_live`."""
    connection.execute(
        text("""
            INSERT INTO catalog.switches (kind, model_version_id, replaced_version_id, report)
            VALUES (:kind, :version, :replaced, :report)
        """),
        {
            "kind": switch.kind,
            "version": switch.model_version_id,
            "replaced": switch.replaced_version_id,
            "report": json.dumps(report or {}),
        },
    )


def find_latest_other(connection: Connection, kind: ModelKind, model_version_id: int) -> int | None:
    """The version that was live last among those other than this one, or None."""
    statement = text("""
        SELECT model_version_id FROM catalog.switches WHERE kind = :kind AND model_version_id <> :version
        ORDER BY switch_id DESC LIMIT 1
    """)
    return connection.execute(statement, {"kind": kind, "version": model_version_id}).scalar_one_or_none()


def was_live(connection: Connection, kind: ModelKind, model_version_id: int) -> bool:
    """Whether answers ever came from a version."""
    statement = text("SELECT EXISTS (SELECT FROM catalog.switches WHERE kind = :kind AND model_version_id = :version)")
    return bool(connection.scalar(statement, {"kind": kind, "version": model_version_id}))
