"""All gates in their order, and whether the latest decision on an evaluation still holds."""

from dataclasses import replace

from pydantic import ValidationError
from sqlalchemy import Connection

from jobs.database.evaluations import Evaluation, GateDecision, read_gate_decisions
from jobs.database.model_versions import ModelKind
from jobs.errors import RefusedError
from jobs.retrain.evaluate.evaluation_record import EvaluationMetrics
from jobs.retrain.gates import data_gates, quality_gates, serving_gates
from jobs.retrain.gates.findings import Evidence, Finding, Gate
from jobs.retrain.gates.gate_policy import GatePolicy

GATES: dict[ModelKind, dict[str, Gate]] = {
    "classifier": {
        "test_set_size": data_gates.decide_test_set_size,
        "smallest_category": data_gates.decide_smallest_category,
        "no_leak": data_gates.decide_no_leak,
        "snapshot_age": data_gates.decide_snapshot_age,
        "artifact_checksum": serving_gates.decide_artifact_checksum,
        "labels_and_preprocessing": serving_gates.decide_labels_and_preprocessing,
        "same_outputs": serving_gates.decide_same_outputs,
        "fidelity": serving_gates.decide_fidelity,
        "accuracy": quality_gates.decide_accuracy,
        "top_3_accuracy": quality_gates.decide_top_3_accuracy,
        "category_recall": quality_gates.decide_category_recall,
        "calibration": quality_gates.decide_calibration,
        "not_worse_than_champion": quality_gates.decide_not_worse_than_champion,
        "blast_radius": quality_gates.decide_blast_radius,
        "latency": serving_gates.decide_latency,
        "throughput": serving_gates.decide_throughput,
        "failures": serving_gates.decide_failures,
        "memory": serving_gates.decide_memory,
    },
    "encoder": {
        "test_set_size": data_gates.decide_test_set_size,
        "no_leak": data_gates.decide_no_leak,
        "snapshot_age": data_gates.decide_snapshot_age,
        "artifact_checksum": serving_gates.decide_artifact_checksum,
        "preprocessing": serving_gates.decide_preprocessing,
        "same_outputs": serving_gates.decide_same_outputs,
        "fidelity": serving_gates.decide_fidelity,
        "clip_score": quality_gates.decide_clip_score,
        "recall_at_1": quality_gates.decide_recall_at(1),
        "recall_at_5": quality_gates.decide_recall_at(5),
        "recall_at_10": quality_gates.decide_recall_at(10),
        "latency": serving_gates.decide_latency,
        "failures": serving_gates.decide_failures,
        "memory": serving_gates.decide_memory,
    },
}


def decide_all(evaluation: Evaluation, has_tagged_catalog: bool, policy: GatePolicy) -> list[GateDecision]:
    """Decide every gate of the candidate's kind.

    A record of another form than this version writes counts as if nothing had been measured.
    """
    metrics, fault = read_metrics(evaluation)
    evidence = Evidence(metrics, evaluation.champion_version_id is not None, has_tagged_catalog)
    findings = {name: decide(evidence, policy) for name, decide in GATES[evaluation.kind].items()}
    return [_record(name, finding, fault) for name, finding in findings.items()]


def read_metrics(evaluation: Evaluation) -> tuple[EvaluationMetrics, str | None]:
    """What was measured, and what is wrong with its record; then nothing counts as measured."""
    try:
        return EvaluationMetrics.from_record(evaluation.metrics), None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        return EvaluationMetrics(), f"the evaluation's record cannot be read: {place}: {first['msg']}"


def _record(name: str, finding: Finding, fault: str | None) -> GateDecision:
    if fault and finding.verdict == "failed":
        finding = replace(finding, sentence=f"{finding.sentence} ({fault})")
    return GateDecision(name, finding.value, finding.bound, finding.verdict, finding.sentence)


NEEDS_CHAMPION = {"not_worse_than_champion", "recall_at_1", "recall_at_5", "recall_at_10"}
"""Skipped only where the evaluation names no champion."""
NEEDS_CATALOG = {"blast_radius"}
"""Skipped also where the catalog has no tags yet."""


def require_passed_gates(connection: Connection, evaluation: Evaluation) -> None:
    """Let an evaluation through whose latest decisions are complete and hold no failure.

    Raises:
        RefusedError: a gate failed, was skipped that may not be, or was never decided; the message names each.
    """
    decisions = {decision.gate: decision for decision in read_gate_decisions(connection, evaluation.evaluation_id)}
    where = f"evaluation {evaluation.evaluation_id} of run {evaluation.run_id}"
    missing = [gate for gate in GATES[evaluation.kind] if gate not in decisions]
    if missing:
        raise RefusedError(
            f"{where} was not decided by {', '.join(missing)}: run `python -m jobs gate {evaluation.kind}` first"
        )
    may_be_skipped = NEEDS_CATALOG | (NEEDS_CHAMPION if evaluation.champion_version_id is None else set())
    refusals = [
        f"{decision.gate} {decision.verdict}: {decision.sentence}"
        for decision in decisions.values()
        if decision.verdict != "passed" and not (decision.verdict == "skipped" and decision.gate in may_be_skipped)
    ]
    if refusals:
        raise RefusedError(f"{where} did not pass its gates: {'; '.join(refusals)}")
