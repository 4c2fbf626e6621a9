"""Promoting candidates, and carrying out the decisions of the page Models."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine

from fixtures.catalog_rows import NewImage, add_images, open_live_space, promote_model, register_model
from fixtures.gate_results import ALL_PASSED, GateResults, store_gate_results
from fixtures.job_processes import count_waiting, wait_until
from fixtures.shop import Shop
from jobs.connections import Connections
from jobs.database.model_coverage import PromotionReport
from jobs.database.model_versions import ModelKind, read_champion, read_live_model
from jobs.database.promotions import ChampionDecision, Switch, insert_decision, insert_switch
from jobs.errors import PermanentError
from jobs.retag import rollback
from jobs.retag.rollback import roll_back
from jobs.retrain.promote import carry_out_decision, promote_candidate
from jobs.settings import PROJECT_ROOT

PROMOTIONS = "SELECT kind, model_version_id, replaced_version_id, evaluation_id, promoted_by FROM catalog.promotions"
CHAMPION = "SELECT model_version_id FROM catalog.champion_models WHERE kind = 'classifier'"


def add_candidate(engine: Engine, run_id: str, kind: ModelKind, results: GateResults = ALL_PASSED) -> int:
    """Add a model version whose gates decided against the current champion."""
    with engine.begin() as connection:
        candidate = register_model(connection, kind, 3 if kind == "encoder" else None)
        store_gate_results(connection, run_id, kind, candidate, results)
    return candidate


def read_champion_and_live(connections: Connections, kind: ModelKind) -> tuple[int | None, int | None]:
    """Return the ids of the champion and the live model."""
    with connections.engine.connect() as connection:
        champion, live = read_champion(connection, kind), read_live_model(connection, kind)
    return champion.model_version_id if champion else None, live.model_version_id if live else None


def test_the_first_classifier_goes_live_at_once(shop: Shop) -> None:
    candidate = add_candidate(shop.connections.engine, "run", "classifier")
    report = promote_candidate(shop.connections, "run", "classifier", "anna")
    assert report == PromotionReport("classifier", candidate, None, report.promotion_id, True, True, 0)
    assert read_champion_and_live(shop.connections, "classifier") == (candidate, candidate)
    assert shop.query(PROMOTIONS) == [("classifier", candidate, None, 1, "anna")]


@pytest.mark.parametrize("kind", ["classifier", "encoder"])
def test_a_later_champion_is_not_live_yet(shop: Shop, kind: ModelKind) -> None:
    with shop.connections.engine.begin() as connection:
        classifier = promote_model(connection, "classifier")
        space_id = open_live_space(connection, 3)
        add_images(connection, [NewImage("p", vector=[1, 0, 0])] * 3, space_id, classifier)
    before, live = read_champion_and_live(shop.connections, kind)
    assert before == live is not None
    candidate = add_candidate(shop.connections.engine, "run", kind)
    report = promote_candidate(shop.connections, "run", kind, "anna")
    assert (report.replaced_version_id, report.is_new, report.is_live) == (before, True, False)
    assert report.unprocessed_images == 3
    assert read_champion_and_live(shop.connections, kind) == (candidate, before)


def test_a_repeated_promotion_changes_nothing(shop: Shop) -> None:
    add_candidate(shop.connections.engine, "run", "classifier")
    first = promote_candidate(shop.connections, "run", "classifier", "anna")
    again = promote_candidate(shop.connections, "run", "classifier", "anna")
    assert (again.promotion_id, again.is_new) == (first.promotion_id, False)
    assert len(shop.query("SELECT * FROM catalog.promotions")) == len(shop.query("SELECT * FROM catalog.switches")) == 1


def test_a_version_that_was_rolled_back_is_not_promoted_again(shop: Shop) -> None:
    """Equal labels give the same version again, a week later."""
    connections = shop.connections
    first = add_candidate(connections.engine, "first", "classifier")
    promote_candidate(connections, "first", "classifier", "anna")
    second = add_candidate(connections.engine, "second", "classifier")
    promote_candidate(connections, "second", "classifier", "anna")
    with connections.engine.begin() as connection:
        insert_switch(connection, Switch("classifier", second, first))
    roll_back(connections, "classifier", None, "anna", "it sees hats everywhere")
    with connections.engine.begin() as connection:
        store_gate_results(connection, "third", "classifier", second)
    with pytest.raises(PermanentError, match=r"rolled back \(anna: it sees hats everywhere\)"):
        promote_candidate(connections, "third", "classifier", "anna")
    assert read_champion_and_live(connections, "classifier") == (first, first)
    roll_back(connections, "classifier", second, "anna", "it was right")
    assert read_champion_and_live(connections, "classifier") == (second, second)


@pytest.mark.parametrize(
    ("results", "message"),
    [
        (GateResults(failed="accuracy"), "accuracy failed: accuracy has failed"),
        (GateResults(undecided="no_leak"), "no_leak"),
    ],
)
def test_a_candidate_that_did_not_pass_every_gate_is_refused(shop: Shop, results: GateResults, message: str) -> None:
    add_candidate(shop.connections.engine, "run", "classifier", results)
    with pytest.raises(PermanentError, match=message):
        promote_candidate(shop.connections, "run", "classifier", "anna")
    assert shop.query(PROMOTIONS) == []


def test_a_run_without_an_evaluation_is_refused(shop: Shop) -> None:
    add_candidate(shop.connections.engine, "another run", "classifier")
    with pytest.raises(PermanentError, match="'run' has no evaluated classifier: run `catalog evaluate"):
        promote_candidate(shop.connections, "run", "classifier", "anna")


def test_the_latest_evaluation_of_a_run_counts(shop: Shop) -> None:
    candidate = add_candidate(shop.connections.engine, "run", "classifier")
    with shop.connections.engine.begin() as connection:
        store_gate_results(connection, "run", "classifier", candidate, GateResults(failed="accuracy"))
    with pytest.raises(PermanentError, match="accuracy failed"):
        promote_candidate(shop.connections, "run", "classifier", "anna")


def test_a_candidate_compared_with_an_earlier_champion_is_refused(shop: Shop) -> None:
    engine = shop.connections.engine
    with engine.begin() as connection:
        champion = promote_model(connection, "classifier")
    add_candidate(engine, "slow", "classifier")
    faster = add_candidate(engine, "fast", "classifier")
    promote_candidate(shop.connections, "fast", "classifier", "anna")
    with pytest.raises(
        PermanentError, match=f"is now classifier {faster}, .* compared with classifier {champion}: eval"
    ):
        promote_candidate(shop.connections, "slow", "classifier", "anna")
    assert read_champion_and_live(shop.connections, "classifier") == (faster, champion)


def test_one_of_several_concurrent_promotions_wins_and_the_others_are_refused(shop: Shop) -> None:
    runs = [f"run {number}" for number in range(4)]
    candidates = [add_candidate(shop.connections.engine, run, "classifier") for run in runs]

    def promote(run: str) -> str:
        try:
            return str(promote_candidate(shop.connections, run, "classifier", "anna").model_version_id)
        except PermanentError as error:
            return str(error)

    with ThreadPoolExecutor(len(runs)) as threads:
        with shop.connections.engine.connect() as blocker:
            # All have started, and none can read the champion before the lock is released.
            blocker.exec_driver_sql("LOCK TABLE catalog.promotions IN SHARE ROW EXCLUSIVE MODE")
            futures = [threads.submit(promote, run) for run in runs]
            wait_until(lambda: count_waiting(shop, "catalog.promotions") == len(runs))
        results = [future.result() for future in futures]
    (champion,) = [candidate for candidate in candidates if str(candidate) in results]
    losers = [result for result in results if result != str(champion)]
    assert len(losers) == len(runs) - 1
    assert all(f"the champion is now classifier {champion}, but the candidate" in loser for loser in losers)
    assert shop.query("SELECT model_version_id FROM catalog.promotions") == [(champion,)]
    assert shop.query("SELECT model_version_id FROM catalog.switches") == [(champion,)]


def test_a_killed_promotion_changes_nothing(shop: Shop) -> None:
    """The process is killed while it waits for a lock in the middle of its transaction."""
    candidate = add_candidate(shop.connections.engine, "run", "classifier")
    code = (
        "from jobs.connections import connect; from jobs.settings import load_settings;"
        "from jobs.retrain.promote import promote_candidate\n"
        "with connect(load_settings()) as c: promote_candidate(c, 'run', 'classifier', 'anna')"
    )
    with shop.connections.engine.connect() as blocker:
        # The switch, which follows the insert of the promotion, waits for this lock.
        blocker.exec_driver_sql("LOCK TABLE catalog.switches IN EXCLUSIVE MODE")
        with subprocess.Popen(
            [sys.executable, "-c", code], cwd=PROJECT_ROOT, env=os.environ | shop.environment
        ) as process:
            wait_until(lambda: count_waiting(shop, "catalog.switches") == 1)
            process.kill()
    assert shop.query(PROMOTIONS) == []
    assert promote_candidate(shop.connections, "run", "classifier", "anna").is_new
    assert read_champion_and_live(shop.connections, "classifier") == (candidate, candidate)


def decide(shop: Shop, run_id: str | None, to_version: int | None = None) -> int:
    with shop.connections.engine.begin() as connection:
        return insert_decision(connection, ChampionDecision("classifier", run_id, to_version, "because", "anna"))


@pytest.fixture
def champion(shop: Shop) -> int:
    """Add a live classifier."""
    with shop.connections.engine.begin() as connection:
        return promote_model(connection, "classifier")


@pytest.fixture
def candidate(shop: Shop, champion: int) -> int:
    """Add a classifier that passed its gates against the champion."""
    with shop.connections.engine.begin() as connection:
        version = register_model(connection, "classifier")
        store_gate_results(connection, "run/1", "classifier", version)
    return version


def test_a_promotion_records_who_decided_it(shop: Shop, candidate: int) -> None:
    decision = decide(shop, "run/1")
    assert carry_out_decision(shop.connections, decision).is_new
    assert shop.query(CHAMPION) == [(candidate,)]
    latest = "SELECT promoted_by FROM catalog.promotions ORDER BY promotion_id DESC LIMIT 1"
    assert shop.query(latest) == [("anna",)]
    assert shop.query("SELECT done_at IS NOT NULL FROM catalog.champion_decisions") == [(True,)]
    assert not carry_out_decision(shop.connections, decision).is_new


def test_a_decision_is_carried_out_once(shop: Shop, champion: int, candidate: int) -> None:
    promote_candidate(shop.connections, "run/1", "classifier", "tester")
    back = decide(shop, None, champion)
    assert carry_out_decision(shop.connections, back).model_version_id == champion
    with shop.connections.engine.begin() as connection:
        later = promote_model(connection, "classifier")
    report = carry_out_decision(shop.connections, back)
    assert (report.is_new, report.model_version_id) == (False, later)
    assert shop.query(CHAMPION) == [(later,)]


def test_a_decision_that_changes_nothing_is_done_too(shop: Shop, champion: int) -> None:
    """As after a second click. Starting its run again later must not undo a newer promotion."""
    stay = decide(shop, None, champion)
    assert not carry_out_decision(shop.connections, stay).is_new
    with shop.connections.engine.begin() as connection:
        later = promote_model(connection, "classifier")
    assert carry_out_decision(shop.connections, stay).model_version_id == later
    assert shop.query(CHAMPION) == [(later,)]


def test_a_rollback_killed_after_its_switch_is_finished(
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


def test_an_unknown_decision_is_refused(shop: Shop, champion: int, candidate: int) -> None:
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


def test_a_decision_does_not_override_the_gates(shop: Shop, champion: int) -> None:
    with shop.connections.engine.begin() as connection:
        version = register_model(connection, "classifier")
        store_gate_results(connection, "run/2", "classifier", version, GateResults(failed="accuracy"))
    with pytest.raises(PermanentError, match="accuracy"):
        carry_out_decision(shop.connections, decide(shop, "run/2"))
    assert shop.query(CHAMPION) == [(champion,)]
