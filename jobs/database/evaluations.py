"""Queries on the trainings, evaluations and gate decisions of candidates."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, text

from jobs.alternatives import name_alternatives
from jobs.database.model_versions import ModelKind
from jobs.database.records import read_record, read_records, text_with_json

Verdict = Literal["passed", "failed", "skipped"]


@dataclass(frozen=True)
class NewEvaluation:
    """The measurements of a candidate. ``metrics`` is the record of `jobs.retrain.evaluate.evaluation_record`."""

    run_id: str
    kind: ModelKind
    snapshot_id: str
    candidate_version_id: int
    champion_version_id: int | None
    metrics: Mapping[str, Any]
    artifact_uri: str


@dataclass(frozen=True)
class Evaluation:
    """A stored evaluation."""

    evaluation_id: int
    run_id: str
    kind: ModelKind
    snapshot_id: str
    candidate_version_id: int
    champion_version_id: int | None
    metrics: dict[str, Any]
    artifact_uri: str
    page_sha256: bytes | None = None


@dataclass(frozen=True)
class GateDecision:
    """The result of a gate: measured value, required bound, verdict, and a sentence with the reason.

    A gate is skipped only if there is nothing to compare with, for example because there is no champion yet.
    """

    gate: str
    value: float | None
    bound: float | None
    verdict: Verdict
    sentence: str


def insert_evaluation(connection: Connection, evaluation: NewEvaluation) -> int:
    """Store an evaluation and return its id."""
    statement = """
        INSERT INTO catalog.evaluations (run_id, kind, snapshot_id, candidate_version_id, champion_version_id, metrics,
                                         artifact_uri)
        VALUES (:run_id, :kind, :snapshot_id, :candidate_version_id, :champion_version_id, :metrics, :artifact_uri)
        RETURNING evaluation_id
    """
    evaluation_id: int = connection.execute(text_with_json(statement, "metrics"), vars(evaluation)).scalar_one()
    return evaluation_id


def read_latest_evaluation(connection: Connection, run_id: str, kind: ModelKind) -> Evaluation | None:
    """Return the latest evaluation of a run's candidate, or None."""
    statement = text("""
        SELECT * FROM catalog.evaluations WHERE run_id = :run AND kind = :kind ORDER BY evaluation_id DESC LIMIT 1
    """)
    return read_record(connection.execute(statement, {"run": run_id, "kind": kind}), Evaluation)


def find_evaluation_in(connection: Connection, artifact_uri: str) -> Evaluation | None:
    """Return the evaluation whose files are in a folder, or None if it was killed before it was stored."""
    statement = text("SELECT * FROM catalog.evaluations WHERE artifact_uri = :uri")
    return read_record(connection.execute(statement, {"uri": artifact_uri}), Evaluation)


def list_run_evaluations(connection: Connection, run_id: str) -> tuple[Evaluation, ...]:
    """Return the latest evaluation of each kind in a run."""
    statement = text("""
        SELECT DISTINCT ON (kind) * FROM catalog.evaluations WHERE run_id = :run ORDER BY kind, evaluation_id DESC
    """)
    return tuple(read_records(connection.execute(statement, {"run": run_id}), Evaluation))


def find_latest_evaluation(connection: Connection, kind: ModelKind) -> Evaluation | None:
    """Return the latest evaluation of a kind, or None."""
    statement = text("SELECT * FROM catalog.evaluations WHERE kind = :kind ORDER BY evaluation_id DESC LIMIT 1")
    return read_record(connection.execute(statement, {"kind": kind}), Evaluation)


def find_evaluation(connection: Connection, candidate_version_id: int) -> Evaluation | None:
    """Return the latest evaluation of a candidate, or None if its run has evaluated another candidate since."""
    statement = text("""
        SELECT * FROM (
            SELECT * FROM catalog.evaluations WHERE candidate_version_id = :version ORDER BY evaluation_id DESC LIMIT 1
        ) e
        WHERE NOT EXISTS (
            SELECT FROM catalog.evaluations n
            WHERE n.run_id = e.run_id AND n.kind = e.kind AND n.evaluation_id > e.evaluation_id
        )
    """)
    return read_record(connection.execute(statement, {"version": candidate_version_id}), Evaluation)


def insert_gate_decisions(connection: Connection, evaluation_id: int, decisions: Sequence[GateDecision]) -> None:
    """Append the decisions of all gates of an evaluation, with the time of the caller's transaction."""
    statement = text("""
        INSERT INTO catalog.gate_decisions (evaluation_id, gate, value, bound, verdict, sentence)
        VALUES (:evaluation, :gate, :value, :bound, :verdict, :sentence)
    """)
    for decision in decisions:
        is_number = decision.value is not None and math.isfinite(decision.value)
        value = decision.value if is_number else None
        connection.execute(statement, {**vars(decision), "value": value, "evaluation": evaluation_id})


def store_page_hash(connection: Connection, evaluation_id: int, sha256: bytes) -> None:
    """Store the hash of the page that the gates have written for an evaluation."""
    connection.execute(
        text("UPDATE catalog.evaluations SET page_sha256 = :sha256 WHERE evaluation_id = :evaluation"),
        {"sha256": sha256, "evaluation": evaluation_id},
    )


def read_gate_decisions(connection: Connection, evaluation_id: int) -> list[GateDecision]:
    """Return the latest gate decisions of an evaluation, in the order in which they were made."""
    rows = connection.execute(
        text("""
            SELECT * FROM catalog.gate_decisions
            WHERE evaluation_id = :evaluation AND decided_at = (
                SELECT max(decided_at) FROM catalog.gate_decisions WHERE evaluation_id = :evaluation
            )
            ORDER BY gate_decision_id
        """),
        {"evaluation": evaluation_id},
    )
    return list(read_records(rows, GateDecision))


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
    """Store a training. Change nothing if the run has already trained this kind."""
    statement = """
        INSERT INTO catalog.trainings (run_id, kind, snapshot_id, model_version_id, settings, report)
        VALUES (:run_id, :kind, :snapshot_id, :model_version_id, :settings, :report) ON CONFLICT DO NOTHING
    """
    connection.execute(text_with_json(statement, "settings", "report"), vars(training))


def read_training(connection: Connection, run_id: str, kind: ModelKind) -> Training | None:
    """Return the training of a kind in a run, or None."""
    statement = text("SELECT * FROM catalog.trainings WHERE run_id = :run AND kind = :kind")
    return read_record(connection.execute(statement, {"run": run_id, "kind": kind}), Training)


def name_trained_runs(connection: Connection, wanted: str, kind: ModelKind) -> str:
    """Return the end of an error message about a run that has trained no model of a kind."""
    statement = text("SELECT run_id FROM catalog.trainings WHERE kind = :kind ORDER BY finished_at DESC LIMIT 200")
    ids = connection.execute(statement, {"kind": kind}).scalars()
    return name_alternatives(wanted, ids, f"No run has a trained {kind} yet")


def name_evaluated_runs(connection: Connection, wanted: str, kind: ModelKind) -> str:
    """Return the end of an error message about a run that has evaluated no model of a kind."""
    statement = text("""
        SELECT run_id FROM catalog.evaluations WHERE kind = :kind
        GROUP BY run_id ORDER BY max(evaluation_id) DESC LIMIT 200
    """)
    ids = connection.execute(statement, {"kind": kind}).scalars()
    return name_alternatives(wanted, ids, f"No run has an evaluated {kind} yet")
