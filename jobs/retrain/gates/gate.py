"""Stage 4 of retraining, gate: decide on a candidate, and write the page and the text for whoever approves it."""

import hashlib
import logging
import re
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
from jobs.database.images import sample_live_tags
from jobs.database.model_versions import ModelKind, read_model_version
from jobs.errors import NotFoundError, PermanentError, RefusedError
from jobs.retrain.evaluate.evaluation_files import (
    FLIPS_FILE,
    LABEL_AUDIT_FILE,
    PAGE_FILE,
    Flip,
    decode_flips,
    decode_label_suspects,
)
from jobs.retrain.gates.evaluation_page import PageContents, render_page
from jobs.retrain.gates.gate_policy import GatePolicy
from jobs.retrain.gates.gates import decide_all, read_metrics
from jobs.retrain.train.history import HISTORY_FILE, EpochRecord
from jobs.storage.object_store import ObjectStore
from jobs.storage.uri import S3Uri

MAX_FLIPS = 20
SPECIAL = re.compile(r"([\\`*_{}\[\]()<>#+!|~&-])")


def write_approval_text(
    evaluation: Evaluation, decisions: Sequence[GateDecision], flips: Sequence[Flip], page_uri: str
) -> str:
    """The gate table and the first flips; whatever the shop named is escaped."""
    kind, champion = evaluation.kind, evaluation.champion_version_id
    replaced = f"would replace **{kind} {champion}**" if champion is not None else f"would be the first {kind}"
    return "\n".join(
        [
            f"**{kind.capitalize()} {evaluation.candidate_version_id}** {replaced}. Its page: {_escape(page_uri)}",
            "",
            "| gate | verdict | why |",
            "|---|---|---|",
            *(
                f"| {_escape(decision.gate)} | **{decision.verdict}** | {_escape(decision.sentence)} |"
                for decision in decisions
            ),
            *_list_flips(flips),
        ]
    )


def _list_flips(flips: Sequence[Flip]) -> list[str]:
    if not flips:
        return []
    return [
        "",
        f"The first {min(len(flips), MAX_FLIPS)} of {len(flips)} images of the sample that would change:",
        "",
        "| product | photo | now | then |",
        "|---|---|---|---|",
        *(
            f"| {_escape(flip.product_id)} | {_escape(flip.object_key)} "
            f"| {_escape(flip.old_category)} {flip.old_confidence:.2f} "
            f"| **{_escape(flip.new_category)}** {flip.new_confidence:.2f} |"
            for flip in flips[:MAX_FLIPS]
        ),
    ]


def _escape(text: str) -> str:
    return SPECIAL.sub(r"\\\1", " ".join(text.split()))


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
            raise NotFoundError(f"run {run_id} has no evaluation: run `python -m jobs evaluate {kind}` first")
        decisions = decide_all(evaluation, bool(sample_live_tags(connection, size=1)), policy)
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
        raise RefusedError(f"{len(failed)} of {len(decisions)} gates failed; {'; '.join(failed)}; see {page}")
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
