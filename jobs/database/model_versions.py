"""Queries on ``model_versions``, and which of them are champions and live."""

import json
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, Row, text

from jobs.errors import NotFoundError

ModelKind = Literal["classifier", "encoder"]
MODEL_KINDS: tuple[ModelKind, ...] = ("classifier", "encoder")
COLUMNS = """
    v.model_version_id, v.kind, v.artifact_uri, v.weights_sha256, v.categories, v.dimensions, v.engine, v.precision
"""


@dataclass(frozen=True)
class NewModelVersion:
    """A checkpoint to register: ``categories`` only of a classifier, ``dimensions`` only of an encoder.

    Without a ``precision`` each machine takes its own. ``built_from`` is the trained version of which this one is the
    build, and ``fidelity`` what was tried for it.
    """

    kind: ModelKind
    artifact_uri: str
    weights_sha256: str
    preprocessing: dict[str, Any]
    categories: tuple[str, ...] | None
    dimensions: int | None
    data_snapshot: str | None
    code_version: str
    library_versions: dict[str, str]
    metrics: dict[str, float]
    engine: str = "torch"
    precision: str | None = None
    built_from: int | None = None
    fidelity: list[dict[str, Any]] | None = None


@dataclass(frozen=True)
class ModelVersion:
    """A registered checkpoint, and how it is computed."""

    model_version_id: int
    kind: ModelKind
    artifact_uri: str
    weights_sha256: str
    categories: tuple[str, ...]
    dimensions: int | None
    engine: str
    precision: str | None

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
                dimensions, data_snapshot, code_version, library_versions, metrics, engine, precision, built_from,
                built_at, fidelity)
            VALUES (:kind, :artifact_uri, :weights_sha256, :preprocessing, :categories, :dimensions, :data_snapshot,
                :code_version, :library_versions, :metrics, :engine, :precision, :built_from,
                CASE WHEN CAST(:built_from AS integer) IS NOT NULL THEN clock_timestamp() END, :fidelity)
            ON CONFLICT (kind, artifact_uri) DO UPDATE
            SET metrics = excluded.metrics, built_from = coalesce(excluded.built_from, v.built_from),
                built_at = coalesce(excluded.built_at, v.built_at), fidelity = coalesce(excluded.fidelity, v.fidelity)
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
            "library_versions": json.dumps(version.library_versions),
            "metrics": json.dumps(version.metrics),
            "engine": version.engine,
            "precision": version.precision,
            "built_from": version.built_from,
            "fidelity": json.dumps(version.fidelity) if version.fidelity is not None else None,
        },
    ).one()
    return _model_version(row)


def read_model_version(connection: Connection, model_version_id: int) -> ModelVersion:
    """Look a version up by its id, which comes from a foreign key and therefore exists."""
    statement = text(f"SELECT {COLUMNS} FROM catalog.model_versions v WHERE v.model_version_id = :id")
    return _model_version(connection.execute(statement, {"id": model_version_id}).one())


def find_build_version(connection: Connection, trained_version_id: int) -> int | None:
    """Return the latest build of a trained version, or None before the first."""
    statement = text("""
        SELECT model_version_id FROM catalog.model_versions WHERE built_from = :id ORDER BY built_at DESC LIMIT 1
    """)
    found: int | None = connection.execute(statement, {"id": trained_version_id}).scalar_one_or_none()
    return found


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
        NotFoundError: nothing of this kind was ever promoted.
    """
    champion = read_champion(connection, kind)
    if champion is None:
        adoption = " or, without labels, `python -m jobs adopt encoder`" if kind == "encoder" else ""
        raise NotFoundError(f"no {kind} was promoted yet: run `python -m jobs retrain`{adoption} first")
    return champion


def _model_version(row: Row[Any]) -> ModelVersion:
    return ModelVersion(
        row.model_version_id,
        row.kind,
        row.artifact_uri,
        row.weights_sha256,
        tuple(row.categories or ()),
        row.dimensions,
        row.engine,
        row.precision,
    )


@dataclass(frozen=True)
class LiveEncoder:
    """The encoder of the live space."""

    model_version_id: int
    space_id: int

    def __str__(self) -> str:
        return f"{self.model_version_id} of space {self.space_id}"


@dataclass(frozen=True)
class LiveVersions:
    """None of a kind before its first."""

    classifier: int | None
    encoder: LiveEncoder | None


def read_live_versions(connection: Connection) -> LiveVersions:
    """Both by one statement, so that they are of one moment."""
    row = connection.execute(
        text("""
            SELECT (SELECT model_version_id FROM catalog.live_models WHERE kind = 'classifier') AS classifier,
                   s.encoder_version_id, s.space_id
            FROM (VALUES (1)) AS one (line) LEFT JOIN catalog.embedding_spaces s ON s.state = 'live'
        """)
    ).one()
    encoder = LiveEncoder(row.encoder_version_id, row.space_id) if row.space_id is not None else None
    return LiveVersions(row.classifier, encoder)
