"""Queries on ``model_versions``: register versions, and find the champions and the live ones."""

from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, text

from jobs.alternatives import name_alternatives
from jobs.database.records import read_record, read_records, text_with_json
from jobs.errors import NotFoundError

ModelKind = Literal["classifier", "encoder"]
MODEL_KINDS: tuple[ModelKind, ...] = ("classifier", "encoder")


@dataclass(frozen=True)
class NewModelVersion:
    """A checkpoint to register. Only classifiers have ``categories``, and only encoders have ``dimensions``."""

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


@dataclass(frozen=True)
class ModelVersion:
    """A registered checkpoint. ``text_uri`` locates the exported text tower of an encoder, if there is one."""

    model_version_id: int
    kind: ModelKind
    artifact_uri: str
    weights_sha256: str
    categories: tuple[str, ...]
    dimensions: int | None
    data_snapshot: str | None
    text_uri: str | None

    @property
    def vector_dimensions(self) -> int:
        """The length of an encoder's vectors. The schema guarantees that an encoder has one."""
        assert self.dimensions is not None
        return self.dimensions


def insert_model_version(connection: Connection, version: NewModelVersion) -> ModelVersion:
    """Register a checkpoint. If its artifact is already registered, update and return that version."""
    statement = """
        INSERT INTO catalog.model_versions (kind, artifact_uri, weights_sha256, preprocessing, categories,
            dimensions, data_snapshot, code_version, library_versions, metrics)
        VALUES (:kind, :artifact_uri, :weights_sha256, :preprocessing, :categories, :dimensions, :data_snapshot,
            :code_version, :library_versions, :metrics)
        ON CONFLICT (kind, artifact_uri) DO UPDATE SET metrics = excluded.metrics
        RETURNING *
    """
    rows = connection.execute(
        text_with_json(statement, "preprocessing", "library_versions", "metrics"),
        {**vars(version), "categories": list(version.categories) if version.categories else None},
    )
    return next(read_records(rows, ModelVersion))


def store_text_uri(connection: Connection, model_version_id: int, text_uri: str) -> None:
    """Record where the exported text tower of an encoder is."""
    statement = text("UPDATE catalog.model_versions SET text_uri = :uri WHERE model_version_id = :id")
    connection.execute(statement, {"uri": text_uri, "id": model_version_id})


def read_model_version(connection: Connection, model_version_id: int) -> ModelVersion:
    """Return a version by its id. The id must exist, for example because it comes from a foreign key."""
    statement = text("SELECT * FROM catalog.model_versions WHERE model_version_id = :id")
    return next(read_records(connection.execute(statement, {"id": model_version_id}), ModelVersion))


def require_model_version(connection: Connection, model_version_id: int) -> ModelVersion:
    """Return a version by an id that a person has entered.

    Raises:
        NotFoundError: no version has this id.
    """
    statement = text("SELECT * FROM catalog.model_versions WHERE model_version_id = :id")
    version = read_record(connection.execute(statement, {"id": model_version_id}), ModelVersion)
    if version is None:
        latest = text("""
            SELECT concat_ws(' ', model_version_id, '(' || kind || ')') FROM catalog.model_versions
            ORDER BY model_version_id DESC LIMIT 100
        """)
        names = name_alternatives(model_version_id, connection.execute(latest).scalars())
        raise NotFoundError(f"there is no model version {model_version_id}. {names}")
    return version


def read_champion(connection: Connection, kind: ModelKind) -> ModelVersion | None:
    """Return the version that was promoted last, or None before the first promotion of a kind."""
    statement = text("""
        SELECT v.* FROM catalog.champion_models n JOIN catalog.model_versions v USING (model_version_id)
        WHERE n.kind = :kind
    """)
    return read_record(connection.execute(statement, {"kind": kind}), ModelVersion)


def read_live_model(connection: Connection, kind: ModelKind) -> ModelVersion | None:
    """Return the live version of a kind, or None before the first switch."""
    statement = text("""
        SELECT v.* FROM catalog.live_models n JOIN catalog.model_versions v USING (model_version_id)
        WHERE n.kind = :kind
    """)
    return read_record(connection.execute(statement, {"kind": kind}), ModelVersion)


def require_champion(connection: Connection, kind: ModelKind) -> ModelVersion:
    """Return the champion of a kind.

    Raises:
        NotFoundError: no version of this kind was ever promoted.
    """
    champion = read_champion(connection, kind)
    if champion is None:
        adoption = " or, without labels, `catalog adopt encoder`" if kind == "encoder" else ""
        raise NotFoundError(f"no {kind} was promoted yet: run `catalog retrain`{adoption} first")
    return champion


@dataclass(frozen=True)
class LiveEncoder:
    """The encoder of the live space."""

    model_version_id: int
    space_id: int

    def __str__(self) -> str:
        return f"{self.model_version_id} of space {self.space_id}"


@dataclass(frozen=True)
class LiveVersions:
    """The live models. Each is None before its first switch."""

    classifier: int | None
    encoder: LiveEncoder | None


def read_live_versions(connection: Connection) -> LiveVersions:
    """Return both live versions. One statement reads them, so they belong to the same moment."""
    row = connection.execute(
        text("""
            SELECT (SELECT model_version_id FROM catalog.live_models WHERE kind = 'classifier') AS classifier,
                   s.encoder_version_id, s.space_id
            FROM (VALUES (1)) AS one (line) LEFT JOIN catalog.embedding_spaces s ON s.state = 'live'
        """)
    ).one()
    encoder = LiveEncoder(row.encoder_version_id, row.space_id) if row.space_id is not None else None
    return LiveVersions(row.classifier, encoder)
