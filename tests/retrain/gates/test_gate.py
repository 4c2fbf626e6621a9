import base64
import json
import logging
from dataclasses import asdict, replace
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import exc, text

from fixtures.catalog_rows import NewImage, add_images, open_live_space
from fixtures.shop import Shop, make_photo
from jobs.database.evaluations import Evaluation, read_gate_decisions
from jobs.database.model_versions import ModelKind
from jobs.database.promotions import Switch, insert_switch
from jobs.errors import PermanentError
from jobs.retrain.evaluate.evaluation_files import (
    FLIPS_FILE,
    LABEL_AUDIT_FILE,
    PAGE_FILE,
    Flip,
    LabelSuspect,
    encode_list,
)
from jobs.retrain.gates.gate import GateReport, decide_gates
from jobs.retrain.gates.gate_policy import GatePolicy, load_gate_policy
from jobs.retrain.gates.gates import GATES
from jobs.retrain.train.history import HISTORY_FILE, EpochRecord
from jobs.storage.uri import S3Uri
from tests.retrain.gates.hand_made_evaluations import GOOD, spoil, store_evaluation

POLICY = load_gate_policy()
THUMBNAIL = base64.b64encode(make_photo(0)).decode()
FLIP = Flip(1, "p1_1.jpg", "p1", "dress", 0.51, "shirt", 0.97, THUMBNAIL)
SUSPECT = LabelSuspect("cd" * 32, "hat", "shirt", 0.02, THUMBNAIL)


def put_evaluation(
    shop: Shop, kind: ModelKind, record: dict[str, Any] | None = None, history: bytes | None = None
) -> Evaluation:
    """An evaluation as its stage leaves it, with its lists beside it, and a candidate in the shop's own bucket."""
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


@pytest.mark.parametrize("kind", ["classifier", "encoder"])
def test_a_good_candidate_is_let_through(shop: Shop, kind: ModelKind) -> None:
    evaluation = put_evaluation(shop, kind)
    report = decide(shop, kind)
    assert (report.evaluation_id, report.kind) == (evaluation.evaluation_id, kind)
    assert [decision.gate for decision in report.decisions] == list(GATES[kind])
    with shop.connections.engine.connect() as connection:
        assert read_gate_decisions(connection, evaluation.evaluation_id) == list(report.decisions)
    assert report.page_uri == f"{evaluation.artifact_uri}/{PAGE_FILE}"
    assert "passed its gates" in read_page(shop, evaluation)
    assert json.loads(json.dumps(asdict(report)))["kind"] == kind


def test_a_failed_gate_ends_the_job_with_its_reason(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    record = spoil(GOOD["classifier"].as_record(), "data.shared_groups", 3)
    evaluation = put_evaluation(shop, "classifier", spoil(record, "serving.images_per_second", None))
    with caplog.at_level(logging.INFO), pytest.raises(PermanentError) as refusal:
        decide(shop)
    message = str(refusal.value)
    assert message.startswith("2 of 18 gates failed; no_leak: test images are in train or validation: 0 by their bytes")
    assert "throughput: the throughput was not measured" in message
    assert "\n" not in message
    assert all(gate in caplog.text for gate in GATES["classifier"])
    with shop.connections.engine.connect() as connection:
        decisions = read_gate_decisions(connection, evaluation.evaluation_id)
    assert [one.gate for one in decisions if one.verdict == "failed"] == ["no_leak", "throughput"]
    assert len(decisions) == 18
    assert "failed 2 of 18 gates" in read_page(shop, evaluation)


def test_a_record_of_another_form_fails_and_still_has_a_page(shop: Shop) -> None:
    evaluation = put_evaluation(shop, "classifier", {"data": "none"})
    with pytest.raises(PermanentError, match="17 of 18 gates failed"):
        decide(shop)
    assert "record cannot be read" in read_page(shop, evaluation)


def test_nothing_is_decided_without_an_evaluation(shop: Shop) -> None:
    put_evaluation(shop, "encoder")
    with pytest.raises(PermanentError, match="run has no evaluation: run `python -m jobs evaluate classifier` first"):
        decide(shop)


def test_the_latest_evaluation_counts_and_its_latest_decisions(shop: Shop) -> None:
    put_evaluation(shop, "classifier", spoil(GOOD["classifier"].as_record(), "data", None))
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
def test_a_decision_cannot_be_changed(shop: Shop, statement: str) -> None:
    put_evaluation(shop, "classifier")
    decide(shop)
    with pytest.raises(exc.DatabaseError, match="append-only"), shop.connections.engine.begin() as connection:
        connection.execute(text(statement))


def test_a_catalog_with_tags_needs_its_blast_radius(shop: Shop) -> None:
    record = replace(GOOD["classifier"], blast_radius=None).as_record()
    evaluation = put_evaluation(shop, "classifier", record)
    assert {one.gate for one in decide(shop).decisions if one.verdict == "skipped"} == {"blast_radius"}
    assert evaluation.champion_version_id is not None
    with shop.connections.engine.begin() as connection:
        add_images(connection, [NewImage("p1")], open_live_space(connection, 3), evaluation.champion_version_id)
        insert_switch(connection, Switch("classifier", evaluation.champion_version_id, None))
    with pytest.raises(PermanentError, match="1 of 18 gates failed; blast_radius"):
        decide(shop)


def test_the_page_shows_history_flips_and_doubted_labels(shop: Shop) -> None:
    history = json.dumps([asdict(EpochRecord(epoch, 0.001, 1.0, 1.2, 0.8)) for epoch in (1, 2)])
    evaluation = put_evaluation(shop, "classifier", history=history.encode())
    decide(shop)
    page = read_page(shop, evaluation)
    assert page.count(THUMBNAIL) == 2
    assert "After each of 2 epochs" in page


@pytest.mark.parametrize("history", [b"", b"[{", b'[{"epoch": "first"}]', b"\xff\xfe"])
def test_a_history_that_was_altered_is_left_out(shop: Shop, history: bytes) -> None:
    evaluation = put_evaluation(shop, "classifier", history=history)
    assert decide(shop).evaluation_id
    assert "After each of" not in read_page(shop, evaluation)


def test_a_list_of_another_form_says_what_to_do(shop: Shop) -> None:
    evaluation = put_evaluation(shop, "classifier")
    shop.connections.store.write(S3Uri.parse(evaluation.artifact_uri) / FLIPS_FILE, b"[{}]")
    with pytest.raises(PermanentError, match="run `python -m jobs evaluate classifier` again"):
        decide(shop)
