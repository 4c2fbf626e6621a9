"""What there is to know of model versions, for people who ask."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from jobs.database.evaluations import GateDecision, read_gate_decisions
from jobs.database.model_versions import ModelKind
from jobs.errors import NotFoundError


@dataclass(frozen=True)
class ModelSummary:
    """A model version; ``run_id`` is that of its training, times are ISO 8601.

    ``built_from`` is the trained version of a build; without a ``precision`` machines take their own.
    """

    model_version_id: int
    kind: ModelKind
    is_champion: bool
    is_live: bool
    was_live: bool
    run_id: str | None
    data_snapshot: str | None
    engine: str
    precision: str | None
    built_from: int | None
    artifact_uri: str
    created_at: str


@dataclass(frozen=True)
class ListedEvaluation:
    """An evaluation with the latest decisions of its gates."""

    evaluation_id: int
    run_id: str
    champion_version_id: int | None
    artifact_uri: str
    evaluated_at: str
    gates: list[GateDecision]


@dataclass(frozen=True)
class ListedPromotion:
    """From when on the version was the champion; ``evaluation_id`` is None for a rollback."""

    promotion_id: int
    replaced_version_id: int | None
    evaluation_id: int | None
    promoted_by: str
    reason: str
    promoted_at: str


@dataclass(frozen=True)
class ListedSwitch:
    """From when on answers came from the version."""

    switch_id: int
    replaced_version_id: int | None
    report: dict[str, Any]
    switched_at: str


@dataclass(frozen=True)
class ModelDetails:
    """All that is stored of a model version, the latest first."""

    summary: ModelSummary
    weights_sha256: str
    categories: list[str] | None
    dimensions: int | None
    preprocessing: dict[str, Any]
    code_version: str
    library_versions: dict[str, str]
    metrics: dict[str, Any]
    evaluations: list[ListedEvaluation]
    promotions: list[ListedPromotion]
    switches: list[ListedSwitch]


SUMMARY = """
    SELECT v.model_version_id, v.kind, coalesce(c.model_version_id = v.model_version_id, false) AS is_champion,
           coalesce(l.model_version_id = v.model_version_id, false) AS is_live,
           EXISTS (SELECT FROM catalog.switches s WHERE s.model_version_id = v.model_version_id) AS was_live,
           (SELECT min(t.run_id) FROM catalog.trainings t
            WHERE t.model_version_id IN (v.model_version_id, v.built_from)) AS run_id,
           v.engine, v.precision, v.built_from,
           v.data_snapshot, v.artifact_uri, to_char(v.created_at AT TIME ZONE 'UTC', :time_format) AS created_at
    FROM catalog.model_versions v
    LEFT JOIN catalog.champion_models c USING (kind)
    LEFT JOIN catalog.live_models l USING (kind)
"""
ISO_8601 = 'YYYY-MM-DD"T"HH24:MI:SS"Z"'


def list_model_versions(connection: Connection) -> list[ModelSummary]:
    """All model versions, the latest first."""
    statement = text(f"{SUMMARY} ORDER BY v.model_version_id DESC")
    return [ModelSummary(**row._mapping) for row in connection.execute(statement, {"time_format": ISO_8601})]


def show_model_version(connection: Connection, model_version_id: int) -> ModelDetails:
    """One model version with its history.

    Raises:
        NotFoundError: there is none with this id.
    """
    parameters = {"id": model_version_id, "time_format": ISO_8601}
    summary = connection.execute(text(f"{SUMMARY} WHERE v.model_version_id = :id"), parameters).one_or_none()
    if summary is None:
        raise NotFoundError(f"there is no model version {model_version_id}: `python -m jobs models list` shows them")
    version = connection.execute(
        text("SELECT * FROM catalog.model_versions WHERE model_version_id = :id"), {"id": model_version_id}
    ).one()
    return ModelDetails(
        summary=ModelSummary(**summary._mapping),
        weights_sha256=version.weights_sha256,
        categories=version.categories,
        dimensions=version.dimensions,
        preprocessing=version.preprocessing,
        code_version=version.code_version,
        library_versions=version.library_versions,
        metrics=version.metrics,
        evaluations=_read_evaluations(connection, parameters),
        promotions=_read_promotions(connection, parameters),
        switches=_read_switches(connection, parameters),
    )


def _read_evaluations(connection: Connection, parameters: dict[str, Any]) -> list[ListedEvaluation]:
    statement = text("""
        SELECT evaluation_id, run_id, champion_version_id, artifact_uri,
               to_char(evaluated_at AT TIME ZONE 'UTC', :time_format) AS evaluated_at
        FROM catalog.evaluations WHERE candidate_version_id = :id ORDER BY evaluation_id DESC
    """)
    return [
        ListedEvaluation(**row._mapping, gates=read_gate_decisions(connection, row.evaluation_id))
        for row in connection.execute(statement, parameters).all()
    ]


def _read_promotions(connection: Connection, parameters: dict[str, Any]) -> list[ListedPromotion]:
    statement = text("""
        SELECT promotion_id, replaced_version_id, evaluation_id, promoted_by, reason,
               to_char(promoted_at AT TIME ZONE 'UTC', :time_format) AS promoted_at
        FROM catalog.promotions WHERE model_version_id = :id ORDER BY promotion_id DESC
    """)
    return [ListedPromotion(**row._mapping) for row in connection.execute(statement, parameters)]


def _read_switches(connection: Connection, parameters: dict[str, Any]) -> list[ListedSwitch]:
    statement = text("""
        SELECT switch_id, replaced_version_id, report,
               to_char(switched_at AT TIME ZONE 'UTC', :time_format) AS switched_at
        FROM catalog.switches WHERE model_version_id = :id ORDER BY switch_id DESC
    """)
    return [ListedSwitch(**row._mapping) for row in connection.execute(statement, parameters)]
