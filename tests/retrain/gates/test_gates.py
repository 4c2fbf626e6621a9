import base64
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Engine, exc, text

from fixtures.catalog_rows import NewImage, add_images, open_live_space
from fixtures.shop import Shop, make_image
from jobs.database.evaluations import Evaluation, GateDecision, Verdict, insert_gate_decisions, read_gate_decisions
from jobs.database.model_versions import ModelKind
from jobs.database.promotions import Switch, insert_switch
from jobs.errors import PermanentError
from jobs.retrain.evaluate.evaluation_record import (
    FLIPS_FILE,
    LABEL_AUDIT_FILE,
    PAGE_FILE,
    Flip,
    LabelSuspect,
    encode_list,
)
from jobs.retrain.gates.gate_policy import GatePolicy, load_gate_policy
from jobs.retrain.gates.gates import GATES, GateReport, decide_gates, require_passed_gates
from jobs.retrain.train.history import HISTORY_FILE, EpochRecord
from jobs.storage.locations import S3Uri
from tests.retrain.gates.sample_evaluations import GOOD, replace_value, store_evaluation

KINDS: list[ModelKind] = ["classifier", "encoder"]
COMPARISONS = {"not_worse_than_champion", "blast_radius", "recall_at_1", "recall_at_5", "recall_at_10"}
POLICY = load_gate_policy()
THUMBNAIL = base64.b64encode(make_image(0)).decode()
FLIP = Flip(1, "p1_1.jpg", "p1", "dress", 0.51, "shirt", 0.97, THUMBNAIL)
SUSPECT = LabelSuspect("cd" * 32, "hat", "shirt", 0.02, THUMBNAIL)


def put_evaluation(
    shop: Shop, kind: ModelKind, record: dict[str, Any] | None = None, history: bytes | None = None
) -> Evaluation:
    """Store an evaluation with its files, and a candidate whose artifact is in the shop's bucket."""
    connections = shop.connections
    folder, artifact = connections.artifacts / uuid4().hex, connections.artifacts / uuid4().hex
    with connections.engine.begin() as connection:
        evaluation = store_evaluation(connection, kind, record, artifact_uri=str(folder))
        connection.execute(
            text("UPDATE catalog.model_versions SET artifact_uri = :uri WHERE model_version_id = :id"),
            {"uri": str(artifact), "id": evaluation.candidate_version_id},
        )
    connections.store.write(folder / FLIPS_FILE, encode_list([FLIP]))
    connections.store.write(folder / LABEL_AUDIT_FILE, encode_list([SUSPECT]))
    if history is not None:
        connections.store.write(artifact / HISTORY_FILE, history)
    return evaluation


def decide(shop: Shop, kind: ModelKind = "classifier", policy: GatePolicy = POLICY) -> GateReport:
    return decide_gates(shop.connections, "run", kind, policy)


def read_page(shop: Shop, evaluation: Evaluation) -> str:
    return shop.connections.store.read(S3Uri.parse(evaluation.artifact_uri) / PAGE_FILE).decode()


@pytest.mark.parametrize("kind", KINDS)
def test_good_candidate_passes(shop: Shop, kind: ModelKind) -> None:
    evaluation = put_evaluation(shop, kind)
    report = decide(shop, kind)
    assert (report.evaluation_id, report.kind) == (evaluation.evaluation_id, kind)
    assert [decision.gate for decision in report.decisions] == list(GATES[kind])
    with shop.connections.engine.connect() as connection:
        assert read_gate_decisions(connection, evaluation.evaluation_id) == list(report.decisions)
    assert report.page_uri == f"{evaluation.artifact_uri}/{PAGE_FILE}"
    assert "passed its gates" in read_page(shop, evaluation)
    assert json.loads(json.dumps(asdict(report)))["kind"] == kind


def test_failed_gate_raises_with_its_sentence(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    record = replace_value(GOOD["classifier"].as_record(), "data.shared_groups", 3)
    evaluation = put_evaluation(shop, "classifier", replace_value(record, "serving.images_per_second", None))
    with caplog.at_level(logging.INFO), pytest.raises(PermanentError) as caught:
        decide(shop)
    message = str(caught.value)
    assert message.startswith(
        "2 of 18 gates failed; no_leak: test images leaked into train or validation: 0 share bytes"
    )
    assert "throughput: the throughput was not measured" in message
    assert "\n" not in message
    assert all(gate in caplog.text for gate in GATES["classifier"])
    with shop.connections.engine.connect() as connection:
        decisions = read_gate_decisions(connection, evaluation.evaluation_id)
    assert [one.gate for one in decisions if one.verdict == "failed"] == ["no_leak", "throughput"]
    assert len(decisions) == 18
    assert "failed 2 of 18 gates" in read_page(shop, evaluation)


def test_unparsable_metrics_fail_and_still_have_a_page(shop: Shop) -> None:
    evaluation = put_evaluation(shop, "classifier", {"data": "none"})
    with pytest.raises(PermanentError, match="17 of 18 gates failed"):
        decide(shop)
    assert "metrics of the evaluation cannot be parsed" in read_page(shop, evaluation)


def test_fails_without_an_evaluation(shop: Shop) -> None:
    put_evaluation(shop, "encoder")
    with pytest.raises(PermanentError, match="no evaluated classifier: run `catalog evaluate classifier"):
        decide(shop)


def test_uses_latest_evaluation_and_latest_decisions(shop: Shop) -> None:
    put_evaluation(shop, "classifier", replace_value(GOOD["classifier"].as_record(), "data", None))
    put_evaluation(shop, "classifier")
    with pytest.raises(PermanentError, match="accuracy"):
        decide(shop, policy=POLICY.model_copy(update={"min_accuracy": 0.95}))
    report = decide(shop)
    with shop.connections.engine.connect() as connection:
        assert read_gate_decisions(connection, report.evaluation_id) == list(report.decisions)
    assert shop.query("SELECT count(*) FROM catalog.gate_decisions") == [(36,)]


@pytest.mark.parametrize(
    "statement", ["UPDATE catalog.gate_decisions SET verdict = 'passed'", "DELETE FROM catalog.gate_decisions"]
)
def test_decisions_are_append_only(shop: Shop, statement: str) -> None:
    put_evaluation(shop, "classifier")
    decide(shop)
    with pytest.raises(exc.DatabaseError, match="append-only"), shop.connections.engine.begin() as connection:
        connection.execute(text(statement))


def test_tagged_catalog_requires_blast_radius(shop: Shop) -> None:
    record = replace(GOOD["classifier"], blast_radius=None).as_record()
    evaluation = put_evaluation(shop, "classifier", record)
    assert {one.gate for one in decide(shop).decisions if one.verdict == "skipped"} == {"blast_radius"}
    assert evaluation.champion_version_id is not None
    with shop.connections.engine.begin() as connection:
        add_images(connection, [NewImage("p1")], open_live_space(connection, 3), evaluation.champion_version_id)
        insert_switch(connection, Switch("classifier", evaluation.champion_version_id, None))
    with pytest.raises(PermanentError, match="1 of 18 gates failed; blast_radius"):
        decide(shop)


def test_page_shows_history_flips_and_suspicious_labels(shop: Shop) -> None:
    history = json.dumps([asdict(EpochRecord(epoch, 0.001, 1.0, 1.2, 0.8)) for epoch in (1, 2)])
    evaluation = put_evaluation(shop, "classifier", history=history.encode())
    decide(shop)
    page = read_page(shop, evaluation)
    assert page.count(THUMBNAIL) == 2
    assert "After each of 2 epochs" in page


@pytest.mark.parametrize("history", [b"", b"[{", b'[{"epoch": "first"}]', b"\xff\xfe"])
def test_damaged_history_is_left_out(shop: Shop, history: bytes) -> None:
    evaluation = put_evaluation(shop, "classifier", history=history)
    assert decide(shop).evaluation_id
    assert "After each of" not in read_page(shop, evaluation)


def test_unparsable_list_fails_with_advice(shop: Shop) -> None:
    evaluation = put_evaluation(shop, "classifier")
    shop.connections.store.write(S3Uri.parse(evaluation.artifact_uri) / FLIPS_FILE, b"[{}]")
    with pytest.raises(PermanentError, match="Run `catalog evaluate classifier` again"):
        decide(shop)


def store_in(engine: Engine, kind: ModelKind, *, has_champion: bool = True) -> Evaluation:
    with engine.begin() as connection:
        return store_evaluation(connection, kind, has_champion=has_champion)


def store_decisions(engine: Engine, evaluation: Evaluation, decisions: Sequence[GateDecision]) -> None:
    with engine.begin() as connection:
        insert_gate_decisions(connection, evaluation.evaluation_id, decisions)


def pass_all(kind: ModelKind) -> list[GateDecision]:
    return [GateDecision(gate, 1.0, 1.0, "passed", "passed") for gate in GATES[kind]]


def change_verdict(kind: ModelKind, gate: str, verdict: Verdict) -> list[GateDecision]:
    """Return decisions that all passed except one."""
    changed = [
        replace(one, verdict=verdict, sentence="some reason") if one.gate == gate else one for one in pass_all(kind)
    ]
    assert changed != pass_all(kind)
    return changed


def require(engine: Engine, evaluation: Evaluation) -> None:
    with engine.connect() as connection:
        require_passed_gates(connection, evaluation)


@pytest.mark.parametrize("kind", KINDS)
def test_accepts_evaluation_that_passed_all_gates(engine: Engine, kind: ModelKind) -> None:
    evaluation = store_in(engine, kind)
    store_decisions(engine, evaluation, pass_all(kind))
    require(engine, evaluation)


@pytest.mark.parametrize("kind", KINDS)
def test_rejects_undecided_evaluation(engine: Engine, kind: ModelKind) -> None:
    evaluation, other = store_in(engine, kind), store_in(engine, kind)
    store_decisions(engine, other, pass_all(kind))
    with pytest.raises(PermanentError, match=f"Run `catalog gate {kind}` first"):
        require(engine, evaluation)


@pytest.mark.parametrize("kind", KINDS)
def test_rejects_any_failed_or_undecided_gate(engine: Engine, kind: ModelKind) -> None:
    evaluation = store_in(engine, kind)
    for gate in GATES[kind]:
        store_decisions(engine, evaluation, change_verdict(kind, gate, "failed"))
        with pytest.raises(PermanentError, match=f"did not pass its gates: {gate} failed: some reason$"):
            require(engine, evaluation)
        store_decisions(engine, evaluation, [one for one in pass_all(kind) if one.gate != gate])
        with pytest.raises(PermanentError, match=rf"has no decision of {gate}\. "):
            require(engine, evaluation)


def test_rejects_decisions_of_the_other_kind(engine: Engine) -> None:
    evaluation = store_in(engine, "classifier")
    store_decisions(engine, evaluation, pass_all("encoder"))
    with pytest.raises(PermanentError, match="accuracy"):
        require(engine, evaluation)


def test_latest_decisions_count(engine: Engine) -> None:
    evaluation = store_in(engine, "classifier")
    store_decisions(engine, evaluation, pass_all("classifier"))
    store_decisions(engine, evaluation, change_verdict("classifier", "no_leak", "failed"))
    with pytest.raises(PermanentError, match="no_leak"):
        require(engine, evaluation)
    store_decisions(engine, evaluation, pass_all("classifier"))
    require(engine, evaluation)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("has_champion", [True, False])
def test_only_comparisons_may_be_skipped(engine: Engine, kind: ModelKind, has_champion: bool) -> None:
    evaluation = store_in(engine, kind, has_champion=has_champion)
    may_be_skipped = {"blast_radius"} if has_champion else COMPARISONS
    for gate in GATES[kind]:
        store_decisions(engine, evaluation, change_verdict(kind, gate, "skipped"))
        if gate in may_be_skipped:
            require(engine, evaluation)
        else:
            with pytest.raises(PermanentError, match=f"{gate} skipped"):
                require(engine, evaluation)
