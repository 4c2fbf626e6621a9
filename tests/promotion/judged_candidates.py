"""Candidates as a gate leaves them: evaluated beside the champion, each gate decided."""

from dataclasses import dataclass

from sqlalchemy import Connection

from jobs.database.evaluations import (
    GateDecision,
    NewEvaluation,
    Verdict,
    insert_evaluation,
    insert_gate_decisions,
)
from jobs.database.model_versions import ModelKind, read_champion
from jobs.database.snapshots import insert_snapshot
from jobs.gates.gates import GATES

SNAPSHOT = "ab" * 32


@dataclass(frozen=True)
class Judgement:
    """What the gates said: ``failed`` one of them, or left one out; None of either is a pass."""

    failed: str | None = None
    undecided: str | None = None


PASSED = Judgement()


def judge_candidate(
    connection: Connection, run_id: str, kind: ModelKind, candidate: int, judgement: Judgement = PASSED
) -> int:
    """Store an evaluation beside the present champion with its gate decisions; returns its id."""
    insert_snapshot(connection, SNAPSHOT, "s3://artifacts/snapshot", {})
    champion = read_champion(connection, kind)
    evaluation = NewEvaluation(
        run_id=run_id,
        kind=kind,
        snapshot_id=SNAPSHOT,
        candidate_version_id=candidate,
        champion_version_id=champion.model_version_id if champion else None,
        metrics={},
        artifact_uri="s3://artifacts/evaluation",
    )
    evaluation_id = insert_evaluation(connection, evaluation)
    decided = [gate for gate in GATES[kind] if gate != judgement.undecided]
    insert_gate_decisions(connection, evaluation_id, [_decide(gate, judgement) for gate in decided])
    return evaluation_id


def _decide(gate: str, judgement: Judgement) -> GateDecision:
    verdict: Verdict = "failed" if gate == judgement.failed else "passed"
    return GateDecision(gate, 0.5, 0.8, verdict, f"{gate} has {verdict}")
