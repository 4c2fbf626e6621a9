"""Who becomes the champion, and who does not."""

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
from jobs.database.promotions import Switch, insert_switch
from jobs.errors import PermanentError
from jobs.retag.rollback import roll_back
from jobs.retrain.promote import promote_candidate
from jobs.settings import PROJECT_ROOT

PROMOTIONS = "SELECT kind, model_version_id, replaced_version_id, evaluation_id, promoted_by FROM catalog.promotions"


def add_candidate(engine: Engine, run_id: str, kind: ModelKind, results: GateResults = ALL_PASSED) -> int:
    """A new model version that was judged beside the present champion."""
    with engine.begin() as connection:
        candidate = register_model(connection, kind, 3 if kind == "encoder" else None)
        store_gate_results(connection, run_id, kind, candidate, results)
    return candidate


def read_in_use(connections: Connections, kind: ModelKind) -> tuple[int | None, int | None]:
    """The ids of champion and live model."""
    with connections.engine.connect() as connection:
        champion, live = read_champion(connection, kind), read_live_model(connection, kind)
    return champion.model_version_id if champion else None, live.model_version_id if live else None


def test_the_first_classifier_answers_at_once(shop: Shop) -> None:
    candidate = add_candidate(shop.connections.engine, "run", "classifier")
    report = promote_candidate(shop.connections, "run", "classifier", "anna")
    assert report == PromotionReport("classifier", candidate, None, report.promotion_id, True, True, 0)
    assert read_in_use(shop.connections, "classifier") == (candidate, candidate)
    assert shop.query(PROMOTIONS) == [("classifier", candidate, None, 1, "anna")]


@pytest.mark.parametrize("kind", ["classifier", "encoder"])
def test_a_later_champion_does_not_answer_yet(shop: Shop, kind: ModelKind) -> None:
    with shop.connections.engine.begin() as connection:
        classifier = promote_model(connection, "classifier")
        space_id = open_live_space(connection, 3)
        add_images(connection, [NewImage("p", vector=[1, 0, 0])] * 3, space_id, classifier)
    before, live = read_in_use(shop.connections, kind)
    assert before == live is not None
    candidate = add_candidate(shop.connections.engine, "run", kind)
    report = promote_candidate(shop.connections, "run", kind, "anna")
    assert (report.replaced_version_id, report.is_new, report.is_live) == (before, True, False)
    assert report.unanswered_images == 3
    assert read_in_use(shop.connections, kind) == (candidate, before)


def test_asked_again_it_changes_nothing(shop: Shop) -> None:
    add_candidate(shop.connections.engine, "run", "classifier")
    first = promote_candidate(shop.connections, "run", "classifier", "anna")
    again = promote_candidate(shop.connections, "run", "classifier", "anna")
    assert (again.promotion_id, again.is_new) == (first.promotion_id, False)
    assert len(shop.query("SELECT * FROM catalog.promotions")) == len(shop.query("SELECT * FROM catalog.switches")) == 1


def test_what_was_rolled_back_does_not_come_back_by_itself(shop: Shop) -> None:
    """The same labels give the same version again, a week later."""
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
    assert read_in_use(connections, "classifier") == (first, first)
    roll_back(connections, "classifier", second, "anna", "it was right")
    assert read_in_use(connections, "classifier") == (second, second)


@pytest.mark.parametrize(
    ("results", "message"),
    [
        (GateResults(failed="accuracy"), "accuracy failed: accuracy has failed"),
        (GateResults(undecided="no_leak"), "no_leak"),
    ],
)
def test_who_did_not_pass_every_gate_is_refused(shop: Shop, results: GateResults, message: str) -> None:
    add_candidate(shop.connections.engine, "run", "classifier", results)
    with pytest.raises(PermanentError, match=message):
        promote_candidate(shop.connections, "run", "classifier", "anna")
    assert shop.query(PROMOTIONS) == []


def test_who_was_never_evaluated_is_refused(shop: Shop) -> None:
    add_candidate(shop.connections.engine, "another run", "classifier")
    with pytest.raises(PermanentError, match="'run' has no evaluated classifier: run `python -m jobs evaluate"):
        promote_candidate(shop.connections, "run", "classifier", "anna")


def test_the_latest_evaluation_of_a_run_counts(shop: Shop) -> None:
    candidate = add_candidate(shop.connections.engine, "run", "classifier")
    with shop.connections.engine.begin() as connection:
        store_gate_results(connection, "run", "classifier", candidate, GateResults(failed="accuracy"))
    with pytest.raises(PermanentError, match="accuracy failed"):
        promote_candidate(shop.connections, "run", "classifier", "anna")


def test_who_was_compared_with_another_champion_is_refused(shop: Shop) -> None:
    engine = shop.connections.engine
    with engine.begin() as connection:
        champion = promote_model(connection, "classifier")
    add_candidate(engine, "slow", "classifier")
    faster = add_candidate(engine, "fast", "classifier")
    promote_candidate(shop.connections, "fast", "classifier", "anna")
    with pytest.raises(PermanentError, match=f"is classifier {faster} now.* compared with classifier {champion}: eval"):
        promote_candidate(shop.connections, "slow", "classifier", "anna")
    assert read_in_use(shop.connections, "classifier") == (faster, champion)


def test_of_racing_promotions_one_wins_and_the_others_are_told(shop: Shop) -> None:
    runs = [f"run {number}" for number in range(4)]
    candidates = [add_candidate(shop.connections.engine, run, "classifier") for run in runs]

    def promote(run: str) -> str:
        try:
            return str(promote_candidate(shop.connections, run, "classifier", "anna").model_version_id)
        except PermanentError as error:
            return str(error)

    with ThreadPoolExecutor(len(runs)) as threads:
        with shop.connections.engine.connect() as blocker:
            # All have begun, and none can decide, before the lock is gone.
            blocker.exec_driver_sql("LOCK TABLE catalog.promotions IN SHARE ROW EXCLUSIVE MODE")
            futures = [threads.submit(promote, run) for run in runs]
            wait_until(lambda: count_waiting(shop, "catalog.promotions") == len(runs))
        answers = [future.result() for future in futures]
    (champion,) = [candidate for candidate in candidates if str(candidate) in answers]
    losers = [answer for answer in answers if answer != str(champion)]
    assert len(losers) == len(runs) - 1
    assert all(f"the champion is classifier {champion} now, but the candidate" in loser for loser in losers)
    assert shop.query("SELECT model_version_id FROM catalog.promotions") == [(champion,)]
    assert shop.query("SELECT model_version_id FROM catalog.switches") == [(champion,)]


def test_killed_at_any_moment_it_is_done_or_not_begun(shop: Shop) -> None:
    """The process waits for a lock in the middle of its transaction when it is killed."""
    candidate = add_candidate(shop.connections.engine, "run", "classifier")
    code = (
        "from jobs.connections import connect; from jobs.settings import load_settings;"
        "from jobs.retrain.promote import promote_candidate\n"
        "with connect(load_settings()) as c: promote_candidate(c, 'run', 'classifier', 'anna')"
    )
    with shop.connections.engine.connect() as blocker:
        # After the promotion is inserted, the switch waits for this.
        blocker.exec_driver_sql("LOCK TABLE catalog.switches IN EXCLUSIVE MODE")
        with subprocess.Popen(
            [sys.executable, "-c", code], cwd=PROJECT_ROOT, env=os.environ | shop.environment
        ) as process:
            wait_until(lambda: count_waiting(shop, "catalog.switches") == 1)
            process.kill()
    assert shop.query(PROMOTIONS) == []
    assert promote_candidate(shop.connections, "run", "classifier", "anna").is_new
    assert read_in_use(shop.connections, "classifier") == (candidate, candidate)
