"""Stage 4 of retraining: decide whether a candidate deserves to go live, and write the page that says why."""

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
    read_latest_evaluation,
    store_page_hash,
)
from jobs.database.live_tags import sample_live_tags
from jobs.database.model_versions import ModelKind, read_model_version
from jobs.errors import PermanentError
from jobs.evaluation.evaluation_files import (
    FLIPS_FILE,
    LABEL_AUDIT_FILE,
    PAGE_FILE,
    decode_flips,
    decode_label_suspects,
)
from jobs.gates.approval_text import write_approval_text
from jobs.gates.evaluation_page import PageContents, render_page
from jobs.gates.gate_policy import GatePolicy
from jobs.gates.gates import decide_all, read_metrics
from jobs.storage.object_store import ObjectStore
from jobs.storage.uri import S3Uri
from jobs.training.history import HISTORY_FILE, EpochRecord

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class GateReport:
    """A candidate that passed its gates; ``approval_text`` is Markdown for the human who is asked."""

    evaluation_id: int
    kind: ModelKind
    decisions: tuple[GateDecision, ...]
    page_uri: str
    approval_text: str


def decide_gates(connections: Connections, run_id: str, kind: ModelKind, policy: GatePolicy) -> GateReport:
    """Decide every gate of a run's candidate by its latest evaluation; asked again, it decides again.

    Raises:
        PermanentError: the run has no evaluation of this kind, or a gate failed; the message holds the sentence of
            each that did, and decisions and page are stored by then.
        RetryableError: bucket or database away.
    """
    with connections.engine.connect() as connection:
        evaluation = read_latest_evaluation(connection, run_id, kind)
        if evaluation is None:
            raise PermanentError(f"run {run_id} has no evaluation: run `python -m jobs evaluate {kind}` first")
        decisions = decide_all(evaluation, bool(sample_live_tags(connection, images=1)), policy)
        contents = _collect(connection, connections.store, evaluation, decisions)
    page = S3Uri.parse(evaluation.artifact_uri) / PAGE_FILE
    content = render_page(contents).encode()
    # Before the decisions, so that none of them lacks its page.
    connections.store.write(page, content)
    with connections.engine.begin() as connection:
        store_page_hash(connection, evaluation.evaluation_id, hashlib.sha256(content).digest())
        insert_gate_decisions(connection, evaluation.evaluation_id, decisions)
    log.info("%s %d before its gates, page %s\n%s", kind, evaluation.candidate_version_id, page, _tabulate(decisions))
    failed = [f"{decision.gate}: {decision.sentence}" for decision in decisions if decision.verdict == "failed"]
    if failed:
        raise PermanentError(f"{len(failed)} of {len(decisions)} gates failed; {'; '.join(failed)}; see {page}")
    return GateReport(
        evaluation_id=evaluation.evaluation_id,
        kind=kind,
        decisions=tuple(decisions),
        page_uri=str(page),
        approval_text=write_approval_text(evaluation, decisions, contents.flips, str(page)),
    )


def _collect(
    connection: Connection, store: ObjectStore, evaluation: Evaluation, decisions: Sequence[GateDecision]
) -> PageContents:
    metrics, _ = read_metrics(evaluation)
    candidate = read_model_version(connection, evaluation.candidate_version_id)
    folder = S3Uri.parse(evaluation.artifact_uri)
    flips = store.read_if_present(folder / FLIPS_FILE)
    suspects = store.read_if_present(folder / LABEL_AUDIT_FILE)
    try:
        return PageContents(
            evaluation=evaluation,
            metrics=metrics,
            decisions=decisions,
            flips=decode_flips(flips) if flips else [],
            label_suspects=decode_label_suspects(suspects) if suspects else [],
            history=_read_history(store, S3Uri.parse(candidate.artifact_uri) / HISTORY_FILE),
        )
    except ValidationError as error:
        raise PermanentError(
            f"a list in {folder} has another form ({error.errors()[0]['msg']}): "
            f"run `python -m jobs evaluate {evaluation.kind}` again"
        ) from None


def _read_history(store: ObjectStore, location: S3Uri) -> list[EpochRecord]:
    """The history of a training; that of an artifact that was altered, which is for a gate to say, is left out."""
    try:
        return TypeAdapter(list[EpochRecord]).validate_json(store.read_if_present(location) or b"[]")
    except ValidationError:
        log.warning("%s has another form and is left out", location)
        return []


def _tabulate(decisions: Sequence[GateDecision]) -> str:
    width = max(len(decision.gate) for decision in decisions)
    return "\n".join(f"{decision.verdict:7}  {decision.gate:{width}}  {decision.sentence}" for decision in decisions)
