"""Decisions of the page Models: stored by those who may, carried out once."""

import pytest

from fixtures.catalog_rows import promote_model, register_model
from fixtures.gate_results import GateResults, store_gate_results
from fixtures.shop import Shop
from jobs.database.promotions import ChampionDecision, insert_decision
from jobs.errors import PermanentError
from jobs.retag import rollback
from jobs.retrain.promote import carry_out_decision, promote_candidate

CHAMPION = "SELECT model_version_id FROM catalog.champion_models WHERE kind = 'classifier'"


def decide(shop: Shop, run_id: str | None, to_version: int | None = None) -> int:
    with shop.connections.engine.begin() as connection:
        return insert_decision(connection, ChampionDecision("classifier", run_id, to_version, "because", "anna"))


@pytest.fixture
def champion(shop: Shop) -> int:
    """The live classifier."""
    with shop.connections.engine.begin() as connection:
        return promote_model(connection, "classifier")


@pytest.fixture
def candidate(shop: Shop, champion: int) -> int:
    """A classifier that passed its gates beside the champion."""
    with shop.connections.engine.begin() as connection:
        version = register_model(connection, "classifier")
        store_gate_results(connection, "run/1", "classifier", version)
    return version


def test_a_promotion_names_who_decided_it(shop: Shop, candidate: int) -> None:
    decision = decide(shop, "run/1")
    assert carry_out_decision(shop.connections, decision).is_new
    assert shop.query(CHAMPION) == [(candidate,)]
    latest = "SELECT promoted_by FROM catalog.promotions ORDER BY promotion_id DESC LIMIT 1"
    assert shop.query(latest) == [("anna",)]
    assert shop.query("SELECT done_at IS NOT NULL FROM catalog.champion_decisions") == [(True,)]
    assert not carry_out_decision(shop.connections, decision).is_new


def test_a_decision_that_was_carried_out_is_not_carried_out_again(shop: Shop, champion: int, candidate: int) -> None:
    promote_candidate(shop.connections, "run/1", "classifier", "tester")
    back = decide(shop, None, champion)
    assert carry_out_decision(shop.connections, back).model_version_id == champion
    with shop.connections.engine.begin() as connection:
        later = promote_model(connection, "classifier")
    report = carry_out_decision(shop.connections, back)
    assert (report.is_new, report.model_version_id) == (False, later)
    assert shop.query(CHAMPION) == [(later,)]


def test_a_decision_that_changed_nothing_is_done_too(shop: Shop, champion: int) -> None:
    """As after a second click: what holds later must not be undone by starting its run again."""
    stay = decide(shop, None, champion)
    assert not carry_out_decision(shop.connections, stay).is_new
    with shop.connections.engine.begin() as connection:
        later = promote_model(connection, "classifier")
    assert carry_out_decision(shop.connections, stay).model_version_id == later
    assert shop.query(CHAMPION) == [(later,)]


def test_a_rollback_that_was_killed_after_its_switch_is_finished(
    shop: Shop, champion: int, candidate: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    promote_candidate(shop.connections, "run/1", "classifier", "tester")
    back = decide(shop, None, champion)
    renewals: list[object] = []
    monkeypatch.setattr(rollback, "renew_live_codes", interrupt)
    with pytest.raises(KeyboardInterrupt):
        carry_out_decision(shop.connections, back)
    assert shop.query(CHAMPION) == [(champion,)]
    monkeypatch.setattr(rollback, "renew_live_codes", renewals.append)
    assert not carry_out_decision(shop.connections, back).is_new
    assert len(renewals) == 1


def interrupt(_: object) -> None:
    raise KeyboardInterrupt


def test_nobody_decides_by_a_number_alone(shop: Shop, champion: int, candidate: int) -> None:
    with pytest.raises(PermanentError, match=r"decision 1 does not exist: .* on the page Models"):
        carry_out_decision(shop.connections, 1)
    assert shop.query(CHAMPION) == [(champion,)]


def test_a_decision_expires_after_a_day(shop: Shop, champion: int, candidate: int) -> None:
    decision = decide(shop, "run/1")
    with shop.connections.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE catalog.champion_decisions SET decided_at = now() - interval '25 hours'")
    with pytest.raises(PermanentError, match="older than a day"):
        carry_out_decision(shop.connections, decision)
    assert shop.query(CHAMPION) == [(champion,)]


def test_no_decision_overrides_the_gates(shop: Shop, champion: int) -> None:
    with shop.connections.engine.begin() as connection:
        version = register_model(connection, "classifier")
        store_gate_results(connection, "run/2", "classifier", version, GateResults(failed="accuracy"))
    with pytest.raises(PermanentError, match="accuracy"):
        carry_out_decision(shop.connections, decide(shop, "run/2"))
    assert shop.query(CHAMPION) == [(champion,)]
