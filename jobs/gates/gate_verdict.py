"""Whether a candidate may be promoted: all gates of its kind were decided, and none of them failed."""

from sqlalchemy import Connection

from jobs.database.evaluations import Evaluation, read_gate_decisions
from jobs.errors import PermanentError
from jobs.gates.gates import GATES

NEEDS_CHAMPION = {"not_worse_than_champion", "recall_at_1", "recall_at_5", "recall_at_10"}
"""Skipped only where the evaluation names no champion."""
NEEDS_CATALOG = {"blast_radius"}
"""Skipped also where the catalog has no tags yet."""


def require_passed_gates(connection: Connection, evaluation: Evaluation) -> None:
    """Let an evaluation through whose latest decisions are complete and hold no failure.

    Raises:
        PermanentError: a gate failed, was skipped that may not be, or was never decided; the message names each.
    """
    decisions = {decision.gate: decision for decision in read_gate_decisions(connection, evaluation.evaluation_id)}
    where = f"evaluation {evaluation.evaluation_id} of run {evaluation.run_id}"
    missing = [gate for gate in GATES[evaluation.kind] if gate not in decisions]
    if missing:
        raise PermanentError(
            f"{where} was not decided by {', '.join(missing)}: run `python -m jobs gate {evaluation.kind}` first"
        )
    may_be_skipped = NEEDS_CATALOG | (NEEDS_CHAMPION if evaluation.champion_version_id is None else set())
    refusals = [
        f"{decision.gate} {decision.verdict}: {decision.sentence}"
        for decision in decisions.values()
        if decision.verdict != "passed" and not (decision.verdict == "skipped" and decision.gate in may_be_skipped)
    ]
    if refusals:
        raise PermanentError(f"{where} did not pass its gates: {'; '.join(refusals)}")
