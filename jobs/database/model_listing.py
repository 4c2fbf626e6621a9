"""List model versions with their history, for people and as JSON."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from jobs.database.evaluations import GateDecision, read_gate_decisions
from jobs.database.model_builds import RegisteredBuild, list_builds
from jobs.database.model_versions import ModelKind, require_model_version
from jobs.database.records import ISO_8601, read_records


@dataclass(frozen=True)
class ModelSummary:
    """A model version. ``run_id`` is the run that trained it. Times are in ISO 8601.

    ``builds`` describes the admitted builds, such as "openvino int8 on cpu".
    """

    model_version_id: int
    kind: ModelKind
    is_champion: bool
    is_live: bool
    was_live: bool
    run_id: str | None
    data_snapshot: str | None
    builds: tuple[str, ...]
    artifact_uri: str
    created_at: str


@dataclass(frozen=True)
class ModelRecord:
    """The stored columns of a model version."""

    summary: ModelSummary
    weights_sha256: str
    categories: list[str] | None
    dimensions: int | None
    preprocessing: dict[str, Any]
    code_version: str
    library_versions: dict[str, str]
    metrics: dict[str, Any]


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
    """A promotion of the version. ``evaluation_id`` is None for a rollback."""

    promotion_id: int
    replaced_version_id: int | None
    evaluation_id: int | None
    promoted_by: str
    reason: str
    promoted_at: str


@dataclass(frozen=True)
class ListedSwitch:
    """A switch that made the version live."""

    switch_id: int
    replaced_version_id: int | None
    report: dict[str, Any]
    switched_at: str


@dataclass(frozen=True)
class ModelDetails(ModelRecord):
    """A model version with all its builds, and its history, newest first."""

    builds: tuple[RegisteredBuild, ...]
    evaluations: list[ListedEvaluation]
    promotions: list[ListedPromotion]
    switches: list[ListedSwitch]


def list_model_versions(connection: Connection) -> list[ModelSummary]:
    """List all model versions, newest first."""
    rows = connection.execute(text(VERSIONS), {"id": None, "time_format": ISO_8601})
    return list(read_records(rows, ModelSummary))


def show_model_version(connection: Connection, model_version_id: int) -> ModelDetails:
    """Return a model version with its history.

    Raises:
        NotFoundError: no version has this id.
    """
    parameters = {"id": model_version_id, "time_format": ISO_8601}
    require_model_version(connection, model_version_id)
    (version,) = read_records(connection.execute(text(VERSIONS), parameters), ModelRecord)
    evaluations = [
        ListedEvaluation(**row._mapping, gates=read_gate_decisions(connection, row.evaluation_id))
        for row in connection.execute(text(EVALUATIONS), parameters).all()
    ]
    return ModelDetails(
        **vars(version),
        builds=list_builds(connection, model_version_id),
        evaluations=evaluations,
        promotions=list(read_records(connection.execute(text(PROMOTIONS), parameters), ListedPromotion)),
        switches=list(read_records(connection.execute(text(SWITCHES), parameters), ListedSwitch)),
    )


VERSIONS = """
    SELECT v.model_version_id, v.kind, coalesce(c.model_version_id = v.model_version_id, false) AS is_champion,
           coalesce(l.model_version_id = v.model_version_id, false) AS is_live,
           EXISTS (SELECT FROM catalog.switches s WHERE s.model_version_id = v.model_version_id) AS was_live,
           (SELECT min(t.run_id) FROM catalog.trainings t
            WHERE t.model_version_id = v.model_version_id) AS run_id,
           (SELECT array_agg(concat_ws(' ', b.engine, b.precision, 'on', b.device_class) ORDER BY b.build_id)
            FROM catalog.model_builds b
            WHERE b.model_version_id = v.model_version_id AND b.artifact_uri IS NOT NULL) AS builds,
           v.data_snapshot, v.artifact_uri,
           to_char(v.created_at AT TIME ZONE 'UTC', :time_format) AS created_at,
           v.weights_sha256, v.categories, v.dimensions, v.preprocessing, v.code_version, v.library_versions, v.metrics
    FROM catalog.model_versions v
    LEFT JOIN catalog.champion_models c USING (kind)
    LEFT JOIN catalog.live_models l USING (kind)
    WHERE CAST(:id AS integer) IS NULL OR v.model_version_id = :id
    ORDER BY v.model_version_id DESC
"""
EVALUATIONS = """
    SELECT evaluation_id, run_id, champion_version_id, artifact_uri,
           to_char(evaluated_at AT TIME ZONE 'UTC', :time_format) AS evaluated_at
    FROM catalog.evaluations WHERE candidate_version_id = :id ORDER BY evaluation_id DESC
"""
PROMOTIONS = """
    SELECT promotion_id, replaced_version_id, evaluation_id, promoted_by, reason,
           to_char(promoted_at AT TIME ZONE 'UTC', :time_format) AS promoted_at
    FROM catalog.promotions WHERE model_version_id = :id ORDER BY promotion_id DESC
"""
SWITCHES = """
    SELECT switch_id, replaced_version_id, report,
           to_char(switched_at AT TIME ZONE 'UTC', :time_format) AS switched_at
    FROM catalog.switches WHERE model_version_id = :id ORDER BY switch_id DESC
"""
