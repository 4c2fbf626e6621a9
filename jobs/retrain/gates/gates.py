"""Stage 5 of retraining, gate: decide all gates of a candidate, and check whether it passed them."""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import Connection

from jobs.connections import Connections
from jobs.database.evaluations import (
    Evaluation,
    GateDecision,
    insert_gate_decisions,
    name_evaluated_runs,
    read_gate_decisions,
    read_latest_evaluation,
    store_page_hash,
)
from jobs.database.images import sample_live_tags
from jobs.database.model_versions import ModelKind, read_model_version
from jobs.errors import NotFoundError, PermanentError, RefusedError
from jobs.retrain.evaluate.evaluation_record import (
    FLIPS_FILE,
    LABEL_AUDIT_FILE,
    PAGE_FILE,
    EvaluationMetrics,
    decode_flips,
    decode_label_suspects,
)
from jobs.retrain.gates import quality_gates, serving_gates
from jobs.retrain.gates.evaluation_page import PageContents, render_page, write_approval_text
from jobs.retrain.gates.findings import Evidence, Gate
from jobs.retrain.gates.gate_policy import GatePolicy
from jobs.retrain.train.history import HISTORY_FILE, EpochRecord
from jobs.storage.locations import S3Uri
from jobs.storage.object_store import ObjectStore

log = logging.getLogger(__name__)

GATES: dict[ModelKind, dict[str, Gate]] = {
    "classifier": {
        "test_set_size": quality_gates.decide_test_set_size,
        "smallest_category": quality_gates.decide_smallest_category,
        "no_leak": quality_gates.decide_no_leak,
        "snapshot_age": quality_gates.decide_snapshot_age,
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
        "test_set_size": quality_gates.decide_test_set_size,
        "no_leak": quality_gates.decide_no_leak,
        "snapshot_age": quality_gates.decide_snapshot_age,
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
NEEDS_CHAMPION = {"not_worse_than_champion", "recall_at_1", "recall_at_5", "recall_at_10"}
"""These gates may be skipped if the evaluation has no champion."""
NEEDS_CATALOG = {"blast_radius"}
"""These gates may be skipped if the catalog has no tags yet."""


@dataclass(frozen=True)
class GateReport:
    """A candidate that passed its gates. ``approval_text`` is the Markdown for the person who approves it."""

    evaluation_id: int
    kind: ModelKind
    decisions: tuple[GateDecision, ...]
    page_uri: str
    approval_text: str


def decide_gates(connections: Connections, run_id: str, kind: ModelKind, policy: GatePolicy) -> GateReport:
    """Decide all gates on the latest evaluation of a run. Store the decisions and the page. Each call decides again.

    Raises:
        PermanentError: the run has no evaluation of this kind, or a gate failed. The message contains the sentence of
            each failed gate. The decisions and the page are stored even if a gate failed.
        RetryableError: the bucket or database is unavailable.
    """
    with connections.engine.connect() as connection:
        evaluation = read_latest_evaluation(connection, run_id, kind)
        if evaluation is None:
            raise NotFoundError(
                f"run {run_id!r} has no evaluated {kind}: run `catalog evaluate {kind} --run {run_id}` first. "
                f"{name_evaluated_runs(connection, run_id, kind)}"
            )
        decisions = decide_all(evaluation, bool(sample_live_tags(connection, size=1)), policy)
        contents = read_page_contents(connection, connections.store, evaluation, decisions)
    page = S3Uri.parse(evaluation.artifact_uri) / PAGE_FILE
    content = render_page(contents).encode()
    # The page is stored before the decisions, so decisions always have a page.
    connections.store.write(page, content)
    with connections.engine.begin() as connection:
        store_page_hash(connection, evaluation.evaluation_id, hashlib.sha256(content).digest())
        insert_gate_decisions(connection, evaluation.evaluation_id, decisions)
    log.info("gates of %s %d, page %s\n%s", kind, evaluation.candidate_version_id, page, _format_table(decisions))
    failed = [f"{decision.gate}: {decision.sentence}" for decision in decisions if decision.verdict == "failed"]
    if failed:
        raise RefusedError(f"{len(failed)} of {len(decisions)} gates failed; {'; '.join(failed)}; see {page}")
    return GateReport(
        evaluation_id=evaluation.evaluation_id,
        kind=kind,
        decisions=tuple(decisions),
        page_uri=str(page),
        approval_text=write_approval_text(evaluation, decisions, contents.flips, str(page)),
    )


def decide_all(evaluation: Evaluation, has_tagged_catalog: bool, policy: GatePolicy) -> list[GateDecision]:
    """Decide every gate of the candidate's kind. If the metrics cannot be parsed, all of them count as missing."""
    metrics, error = read_metrics(evaluation)
    evidence = Evidence(metrics, evaluation.champion_version_id is not None, has_tagged_catalog)
    decisions = []
    for name, decide in GATES[evaluation.kind].items():
        finding = decide(evidence, policy)
        sentence = f"{finding.sentence} ({error})" if error and finding.verdict == "failed" else finding.sentence
        decisions.append(GateDecision(name, finding.value, finding.bound, finding.verdict, sentence))
    return decisions


def read_metrics(evaluation: Evaluation) -> tuple[EvaluationMetrics, str | None]:
    """Parse the metrics of an evaluation. If that fails, return empty metrics and the error."""
    try:
        return EvaluationMetrics.from_record(evaluation.metrics), None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        return EvaluationMetrics(), f"the metrics of the evaluation cannot be parsed: {place}: {first['msg']}"


def require_passed_gates(connection: Connection, evaluation: Evaluation) -> None:
    """Check that the latest decisions on an evaluation are complete, and that no gate failed.

    Raises:
        RefusedError: a gate is undecided, failed, or was skipped although it applies. The message names each.
    """
    decisions = {decision.gate: decision for decision in read_gate_decisions(connection, evaluation.evaluation_id)}
    where = f"evaluation {evaluation.evaluation_id} of run {evaluation.run_id}"
    missing = [gate for gate in GATES[evaluation.kind] if gate not in decisions]
    if missing:
        raise RefusedError(
            f"{where} has no decision of {', '.join(missing)}. Run `catalog gate {evaluation.kind}` first"
        )
    may_be_skipped = NEEDS_CATALOG | (NEEDS_CHAMPION if evaluation.champion_version_id is None else set())
    refusals = [
        f"{decision.gate} {decision.verdict}: {decision.sentence}"
        for decision in decisions.values()
        if decision.verdict != "passed" and not (decision.verdict == "skipped" and decision.gate in may_be_skipped)
    ]
    if refusals:
        raise RefusedError(f"{where} did not pass its gates: {'; '.join(refusals)}")


def read_page_contents(
    connection: Connection, store: ObjectStore, evaluation: Evaluation, decisions: Sequence[GateDecision]
) -> PageContents:
    """Read everything that the page of an evaluation shows.

    Raises:
        PermanentError: a file of the evaluation is damaged.
    """
    metrics, _ = read_metrics(evaluation)
    candidate = read_model_version(connection, evaluation.candidate_version_id)
    folder = S3Uri.parse(evaluation.artifact_uri)
    try:
        return PageContents(
            evaluation=evaluation,
            metrics=metrics,
            decisions=decisions,
            flips=decode_flips(store.read_if_present(folder / FLIPS_FILE) or b"[]"),
            label_suspects=decode_label_suspects(store.read_if_present(folder / LABEL_AUDIT_FILE) or b"[]"),
            history=_read_history(store, S3Uri.parse(candidate.artifact_uri) / HISTORY_FILE),
        )
    except ValidationError as error:
        raise PermanentError(
            f"a file in {folder} cannot be parsed ({error.errors()[0]['msg']}). "
            f"Run `catalog evaluate {evaluation.kind}` again"
        ) from None


def _read_history(store: ObjectStore, location: S3Uri) -> list[EpochRecord]:
    """Read the training history. Return an empty one if it cannot be parsed: the checksum gate fails in that case."""
    try:
        return TypeAdapter(list[EpochRecord]).validate_json(store.read_if_present(location) or b"[]")
    except ValidationError:
        log.warning("%s cannot be parsed and is left out", location)
        return []


def _format_table(decisions: Sequence[GateDecision]) -> str:
    width = max(len(decision.gate) for decision in decisions)
    return "\n".join(f"{decision.verdict:7}  {decision.gate:{width}}  {decision.sentence}" for decision in decisions)
