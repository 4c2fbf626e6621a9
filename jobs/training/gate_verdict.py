"""Whether a candidate may be promoted: all gates of its kind were decided, and none of them failed."""

from sqlalchemy import Connection

from jobs.database.evaluations import Evaluation, read_gate_decisions
from jobs.database.model_versions import ModelKind
from jobs.errors import PermanentError

DATA_GATES = ("test_set_size", "no_leak", "snapshot_age")
SERVING_GATES = ("latency", "failures", "memory")
GATES: dict[ModelKind, tuple[str, ...]] = {
    "classifier": (
        *DATA_GATES,
        "smallest_category",
        "artifact_checksum",
        "labels_and_preprocessing",
        "same_outputs",
        "accuracy",
        "top_3_accuracy",
        "class_recall",
        "calibration",
        "not_worse_than_champion",
        "blast_radius",
        "throughput",
        *SERVING_GATES,
    ),
    "encoder": (
        *DATA_GATES,
        "artifact_checksum",
        "preprocessing",
        "same_outputs",
        "clip_score",
        "recall_at_1",
        "recall_at_5",
        "recall_at_10",
        *SERVING_GATES,
    ),
}
"""Every gate of a kind, in the order in which they are decided and shown."""

NEEDS_A_CHAMPION = {"not_worse_than_champion", "recall_at_1", "recall_at_5", "recall_at_10"}
"""Gates that compare with the champion: without one there is nothing to compare with, and they are skipped."""

SKIPPABLE = NEEDS_A_CHAMPION | {"blast_radius"}


def require_passed_gates(connection: Connection, evaluation: Evaluation) -> None:
    """Let an evaluation through whose latest decisions are complete and hold no failure.

    Raises:
        PermanentError: a gate failed, was skipped that may not be, or was never decided; the message names each.
    """
    decisions = {decision.gate: decision for decision in read_gate_decisions(connection, evaluation.evaluation_id)}
    where = f"evaluation {evaluation.evaluation_id} of run {evaluation.run_id!r}"
    if not decisions:
        raise PermanentError(f"the gates of {where} were never decided: run `python -m jobs gate` first")
    undecided = [gate for gate in GATES[evaluation.kind] if gate not in decisions]
    if undecided:
        raise PermanentError(f"{where} lacks the decisions of {', '.join(undecided)}: run `python -m jobs gate` again")
    allowed = SKIPPABLE if evaluation.champion_version_id is None else SKIPPABLE - NEEDS_A_CHAMPION
    refusals = [
        f"{decision.gate} {decision.verdict}: {decision.sentence}"
        for decision in decisions.values()
        if not (decision.verdict == "passed" or (decision.verdict == "skipped" and decision.gate in allowed))
    ]
    if refusals:
        raise PermanentError(f"{where} did not pass its gates: {'; '.join(refusals)}")
