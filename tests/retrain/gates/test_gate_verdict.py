from collections.abc import Sequence
from dataclasses import replace

import pytest
from sqlalchemy import Engine

from jobs.database.evaluations import Evaluation, GateDecision, Verdict, insert_gate_decisions
from jobs.database.model_versions import ModelKind
from jobs.errors import PermanentError
from jobs.retrain.gates.gates import GATES, require_passed_gates
from tests.retrain.gates.hand_made_evaluations import store_evaluation

KINDS: list[ModelKind] = ["classifier", "encoder"]
COMPARISONS = {"not_worse_than_champion", "blast_radius", "recall_at_1", "recall_at_5", "recall_at_10"}


def store(engine: Engine, kind: ModelKind, *, has_champion: bool = True) -> Evaluation:
    with engine.begin() as connection:
        return store_evaluation(connection, kind, has_champion=has_champion)


def decide(engine: Engine, evaluation: Evaluation, decisions: Sequence[GateDecision]) -> None:
    with engine.begin() as connection:
        insert_gate_decisions(connection, evaluation.evaluation_id, decisions)


def pass_all(kind: ModelKind) -> list[GateDecision]:
    return [GateDecision(gate, 1.0, 1.0, "passed", "all is well") for gate in GATES[kind]]


def change_verdict(kind: ModelKind, gate: str, verdict: Verdict) -> list[GateDecision]:
    """Everything passed but one gate."""
    changed = [
        replace(one, verdict=verdict, sentence="so it is") if one.gate == gate else one for one in pass_all(kind)
    ]
    assert changed != pass_all(kind)
    return changed


def require(engine: Engine, evaluation: Evaluation) -> None:
    with engine.connect() as connection:
        require_passed_gates(connection, evaluation)


@pytest.mark.parametrize("kind", KINDS)
def test_who_passed_all_gates_is_let_through(engine: Engine, kind: ModelKind) -> None:
    evaluation = store(engine, kind)
    decide(engine, evaluation, pass_all(kind))
    require(engine, evaluation)


@pytest.mark.parametrize("kind", KINDS)
def test_gates_that_were_never_decided_let_nobody_through(engine: Engine, kind: ModelKind) -> None:
    evaluation, other = store(engine, kind), store(engine, kind)
    decide(engine, other, pass_all(kind))
    with pytest.raises(PermanentError, match=f"run `python -m jobs gate {kind}` first"):
        require(engine, evaluation)


@pytest.mark.parametrize("kind", KINDS)
def test_every_gate_counts(engine: Engine, kind: ModelKind) -> None:
    evaluation = store(engine, kind)
    for gate in GATES[kind]:
        decide(engine, evaluation, change_verdict(kind, gate, "failed"))
        with pytest.raises(PermanentError, match=f"did not pass its gates: {gate} failed: so it is$"):
            require(engine, evaluation)
        decide(engine, evaluation, [one for one in pass_all(kind) if one.gate != gate])
        with pytest.raises(PermanentError, match=f"was not decided by {gate}: "):
            require(engine, evaluation)


def test_decisions_of_the_other_kind_are_not_enough(engine: Engine) -> None:
    evaluation = store(engine, "classifier")
    decide(engine, evaluation, pass_all("encoder"))
    with pytest.raises(PermanentError, match="accuracy"):
        require(engine, evaluation)


def test_the_latest_decisions_count(engine: Engine) -> None:
    evaluation = store(engine, "classifier")
    decide(engine, evaluation, pass_all("classifier"))
    decide(engine, evaluation, change_verdict("classifier", "no_leak", "failed"))
    with pytest.raises(PermanentError, match="no_leak"):
        require(engine, evaluation)
    decide(engine, evaluation, pass_all("classifier"))
    require(engine, evaluation)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("has_champion", [True, False])
def test_only_comparisons_may_be_skipped(engine: Engine, kind: ModelKind, has_champion: bool) -> None:
    evaluation = store(engine, kind, has_champion=has_champion)
    may_be_skipped = {"blast_radius"} if has_champion else COMPARISONS
    for gate in GATES[kind]:
        decide(engine, evaluation, change_verdict(kind, gate, "skipped"))
        if gate in may_be_skipped:
            require(engine, evaluation)
        else:
            with pytest.raises(PermanentError, match=f"{gate} skipped"):
                require(engine, evaluation)
