"""Trainings, evaluations and gate decisions of candidates."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, Row, text

from jobs.database.model_versions import ModelKind

Verdict = Literal["passed", "failed", "skipped"]


@dataclass(frozen=True)
class NewEvaluation:
    """What was measured of a candidate; ``metrics`` is the record of `jobs.retrain.evaluate.evaluation_record`."""

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
    """One gate: what was measured, what is asked for, and the verdict with a sentence that says why.

    A gate is skipped only where there is nothing to compare with, as for the first champion.
    """

    gate: str
    value: float | None
    bound: float | None
    verdict: Verdict
    sentence: str


def insert_evaluation(connection: Connection, evaluation: NewEvaluation) -> int:
    """Store an evaluation and return its id."""
    evaluation_id: int = connection.execute(
        text("""
            INSERT INTO catalog.evaluations (run_id, kind, snapshot_id, candidate_version_id, champion_version_id,
                                             metrics, artifact_uri)
            VALUES (:run, :kind, :snapshot, :candidate, :champion, :metrics, :uri)
            RETURNING evaluation_id
        """),
        {
            "run": evaluation.run_id,
            "kind": evaluation.kind,
            "snapshot": evaluation.snapshot_id,
            "candidate": evaluation.candidate_version_id,
            "champion": evaluation.champion_version_id,
            "metrics": json.dumps(evaluation.metrics, allow_nan=False),
            "uri": evaluation.artifact_uri,
        },
    ).scalar_one()
    return evaluation_id


def read_latest_evaluation(connection: Connection, run_id: str, kind: ModelKind) -> Evaluation | None:
    """The last evaluation of a run's candidate, or None."""
    statement = text("""
        SELECT * FROM catalog.evaluations WHERE run_id = :run AND kind = :kind ORDER BY evaluation_id DESC LIMIT 1
    """)
    row = connection.execute(statement, {"run": run_id, "kind": kind}).one_or_none()
    return _evaluation(row) if row else None


def insert_gate_decisions(connection: Connection, evaluation_id: int, decisions: Sequence[GateDecision]) -> None:
    """Append the decisions of all gates of an evaluation, in the caller's transaction, whose time they bear."""
    for decision in decisions:
        is_number = decision.value is not None and math.isfinite(decision.value)
        connection.execute(
            text("""
                INSERT INTO catalog.gate_decisions (evaluation_id, gate, value, bound, verdict, sentence)
                VALUES (:evaluation, :gate, :value, :bound, :verdict, :sentence)
            """),
            {
                "evaluation": evaluation_id,
                "gate": decision.gate,
                "value": decision.value if is_number else None,
                "bound": decision.bound,
                "verdict": decision.verdict,
                "sentence": decision.sentence,
            },
        )


def store_page_hash(connection: Connection, evaluation_id: int, sha256: bytes) -> None:
    """Note which page the gates have written of an evaluation."""
    connection.execute(
        text("UPDATE catalog.evaluations SET page_sha256 = :sha256 WHERE evaluation_id = :evaluation"),
        {"sha256": sha256, "evaluation": evaluation_id},
    )


def read_gate_decisions(connection: Connection, evaluation_id: int) -> list[GateDecision]:
    """The latest decisions of an evaluation, in the order in which they were made; none before the first."""
    rows = connection.execute(
        text("""
            SELECT gate, value, bound, verdict, sentence FROM catalog.gate_decisions
            WHERE evaluation_id = :evaluation AND decided_at = (
                SELECT max(decided_at) FROM catalog.gate_decisions WHERE evaluation_id = :evaluation
            )
            ORDER BY gate_decision_id
        """),
        {"evaluation": evaluation_id},
    )
    return [GateDecision(*row) for row in rows]


def _evaluation(row: Row[Any]) -> Evaluation:
    return Evaluation(
        row.evaluation_id,
        row.run_id,
        row.kind,
        row.snapshot_id,
        row.candidate_version_id,
        row.champion_version_id,
        row.metrics,
        row.artifact_uri,
        bytes(row.page_sha256) if row.page_sha256 else None,
    )


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
