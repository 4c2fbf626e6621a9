"""Queries on ``model_versions``, and which of them are champions and live."""

import json
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, Row, text

from jobs.errors import PermanentError

ModelKind = Literal["classifier", "encoder"]
MODEL_KINDS: tuple[ModelKind, ...] = ("classifier", "encoder")
COLUMNS = "v.model_version_id, v.kind, v.artifact_uri, v.weights_sha256, v.categories, v.dimensions"


@dataclass(frozen=True)
class NewModelVersion:
    """A checkpoint to register: ``categories`` only of a classifier, ``dimensions`` only of an encoder."""

    kind: ModelKind
    artifact_uri: str
    weights_sha256: str
    preprocessing: dict[str, Any]
    categories: tuple[str, ...] | None
    dimensions: int | None
    data_snapshot: str | None
    code_version: str
    metrics: dict[str, float]


@dataclass(frozen=True)
class ModelVersion:
    """A registered checkpoint."""

    model_version_id: int
    kind: ModelKind
    artifact_uri: str
    weights_sha256: str
    categories: tuple[str, ...]
    dimensions: int | None

    @property
    def vector_dimensions(self) -> int:
        """The length of an encoder's vectors; the schema demands it of each."""
        assert self.dimensions is not None
        return self.dimensions


def insert_model_version(connection: Connection, version: NewModelVersion) -> ModelVersion:
    """Register a checkpoint; the same artifact a second time gives the version that it already has."""
    row = connection.execute(
        text(f"""
            INSERT INTO catalog.model_versions AS v (kind, artifact_uri, weights_sha256, preprocessing, categories,
                dimensions, data_snapshot, code_version, metrics)
            VALUES (:kind, :artifact_uri, :weights_sha256, :preprocessing, :categories,
                :dimensions, :data_snapshot, :code_version, :metrics)
            ON CONFLICT (kind, artifact_uri) DO UPDATE SET metrics = excluded.metrics
            RETURNING {COLUMNS}
        """),
        {
            "kind": version.kind,
            "artifact_uri": version.artifact_uri,
            "weights_sha256": version.weights_sha256,
            "preprocessing": json.dumps(version.preprocessing),
            "categories": list(version.categories) if version.categories else None,
            "dimensions": version.dimensions,
            "data_snapshot": version.data_snapshot,
            "code_version": version.code_version,
            "metrics": json.dumps(version.metrics),
        },
    ).one()
    return _model_version(row)


def read_model_version(connection: Connection, model_version_id: int) -> ModelVersion:
    """Look a version up by its id, which comes from a foreign key and therefore exists."""
    statement = text(f"SELECT {COLUMNS} FROM catalog.model_versions v WHERE v.model_version_id = :id")
    return _model_version(connection.execute(statement, {"id": model_version_id}).one())


def read_champion(connection: Connection, kind: ModelKind) -> ModelVersion | None:
    """The version of the latest promotion of a kind, or None before the first."""
    return _read_named_by(connection, "champion_models", kind)


def read_live_model(connection: Connection, kind: ModelKind) -> ModelVersion | None:
    """The version of a kind that answers come from, or None before the first switch."""
    return _read_named_by(connection, "live_models", kind)


def _read_named_by(connection: Connection, view: str, kind: ModelKind) -> ModelVersion | None:
    statement = text(f"""
        SELECT {COLUMNS} FROM catalog.{view} n JOIN catalog.model_versions v USING (model_version_id)
        WHERE n.kind = :kind
    """)
    row = connection.execute(statement, {"kind": kind}).one_or_none()
    return _model_version(row) if row else None


def require_champion(connection: Connection, kind: ModelKind) -> ModelVersion:
    """The champion of a kind.

    Raises:
        PermanentError: nothing of this kind was ever promoted.
    """
    champion = read_champion(connection, kind)
    if champion is None:
        raise PermanentError(f"no {kind} was promoted yet: run `python -m jobs retrain` first")
    return champion


def _model_version(row: Row[Any]) -> ModelVersion:
    return ModelVersion(
        row.model_version_id,
        row.kind,
        row.artifact_uri,
        row.weights_sha256,
        tuple(row.categories or ()),
        row.dimensions,
    )
