"""Promoting and rolling back: shown first, confirmed by whoever may, and started as a run of a real DAG."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest

from fixtures.catalog_rows import register_model
from fixtures.gate_results import GateResults, store_gate_results
from fixtures.shop import Shop
from jobs.database.promotions import Switch, insert_switch
from jobs.retag.rollback import roll_back
from jobs.retrain.promote import promote_candidate
from jobs.settings import PROJECT_ROOT
from tests.plugins.pages.conftest import HOSTILE, BrowsedShop, Role, Visitor, read_text

Visit = Callable[[Role | None], Visitor]


@pytest.fixture(scope="session")
def decision_dag(airflow_accounts: Any) -> None:
    """Airflow's database with the DAG that carries decisions out, as its dag processor leaves it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from airflow import settings
        from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
        from airflow.models import import_all_models
        from airflow.models.base import Base
        from airflow.models.dagbundle import DagBundleModel
        from airflow.utils.db import synchronize_log_template

        import_all_models()
        Base.metadata.create_all(settings.engine)
        synchronize_log_template()
        with settings.Session() as session:
            session.add(DagBundleModel(name="decisions"))
            session.commit()
        bag = DagBag(PROJECT_ROOT / "dags" / "model_decision.py", bundle_name="decisions")
        assert not bag.import_errors
        sync_bag_to_db(bag, "decisions", None)


def list_decisions(shop: Shop) -> list[tuple[Any, ...]]:
    """What was decided, the latest first; each has started a run in the name of the same person."""
    from airflow.models import DagRun

    decisions = shop.query("SELECT * FROM catalog.champion_decisions ORDER BY decision_id DESC")
    runs = sorted(DagRun.find(dag_id="model_decision"), key=lambda run: -run.id)[: len(decisions)]
    assert [(run.conf["decision"], run.triggering_user_name) for run in runs] == [(row[0], row[5]) for row in decisions]
    return [row[1:6] for row in decisions]


@pytest.fixture
def candidate(browsed: BrowsedShop) -> int:
    """A classifier that passed its gates, and calls one of four photos something else."""
    with browsed.shop.connections.engine.begin() as connection:
        version = register_model(connection, "classifier")
        store_gate_results(connection, "run/1", "classifier", version)
        connection.exec_driver_sql(f"""
            INSERT INTO catalog.image_tags
            SELECT image_id, {version}, CASE image_id WHEN {browsed.image_ids[0]} THEN 'hat' ELSE category END,
                   confidence, top_3, probabilities, content_hash
            FROM catalog.image_tags
        """)
    return version


def test_a_promotion_is_shown_and_started(
    visit: Visit, browsed: BrowsedShop, candidate: int, decision_dag: None
) -> None:
    promoter = visit("op")
    assert "Promote it" in promoter.get("models").text
    page = read_text(promoter.get(f"models/{candidate}/promote").text)
    assert f"Promote classifier {candidate} ?" in page or f"Promote classifier {candidate}?" in page
    assert "25 % of the 4 that both have answered" in page
    assert "80 % of 5 photos" in page
    assert "blast_radius has passed" in page
    answer = promoter.post(f"models/{candidate}/promote")
    assert answer.status_code == 303
    assert list_decisions(browsed.shop) == [("classifier", "run/1", None, "passed its gates", "op@example.test")]
    waiting = promoter.client.get(answer.headers["location"])
    assert "It is on its way (queued)" in waiting.text
    assert 'http-equiv="refresh"' in waiting.text


def test_a_rollback_is_shown_and_started(
    visit: Visit, browsed: BrowsedShop, candidate: int, decision_dag: None
) -> None:
    promote_candidate(browsed.shop.connections, "run/1", "classifier", "tester")
    promoter = visit("op")
    assert "It is the champion" in promoter.get(f"models/{candidate}").text
    with browsed.shop.connections.engine.begin() as connection:
        insert_switch(connection, Switch("classifier", candidate, browsed.classifier))
    assert f"Roll back to classifier {browsed.classifier}" in promoter.get("models").text
    page = read_text(promoter.get(f"models/{browsed.classifier}/rollback").text)
    assert "25 % of the 4 that both have answered" in page
    assert promoter.post(f"models/{browsed.classifier}/rollback", {"reason": "  "}).status_code == 422
    answer = promoter.post(f"models/{browsed.classifier}/rollback", {"reason": HOSTILE})
    assert answer.status_code == 303
    assert list_decisions(browsed.shop) == [("classifier", None, browsed.classifier, HOSTILE, "op@example.test")]
    # What the job does, and what the history shows of it.
    roll_back(browsed.shop.connections, "classifier", browsed.classifier, "op@example.test", HOSTILE.replace("%00", ""))
    history = promoter.get("models").text
    assert "rollback" in history
    assert "op@example.test: &#34;&#39;&gt;&lt;script&gt;" in history
    assert "<script>alert" not in history
    assert "was rolled back" in promoter.get(f"models/{candidate}").text


@pytest.mark.parametrize("results", [GateResults(failed="accuracy"), GateResults(undecided="memory")])
def test_what_did_not_pass_its_gates_cannot_be_promoted(
    visit: Visit, browsed: BrowsedShop, decision_dag: None, results: GateResults
) -> None:
    with browsed.shop.connections.engine.begin() as connection:
        version = register_model(connection, "classifier")
        store_gate_results(connection, "run/2", "classifier", version, results)
    promoter = visit("admin")
    assert "It cannot be promoted" in promoter.get(f"models/{version}").text
    assert "Promote it" not in promoter.get("models").text
    for answer in (promoter.get(f"models/{version}/promote"), promoter.post(f"models/{version}/promote")):
        assert answer.status_code == 409
        assert (results.failed or results.undecided or "") in answer.text
    assert list_decisions(browsed.shop) == []


def test_what_was_never_live_cannot_be_gone_back_to(
    visit: Visit, browsed: BrowsedShop, candidate: int, decision_dag: None
) -> None:
    promoter = visit("op")
    refused = promoter.post(f"models/{candidate}/rollback", {"reason": "why not"})
    assert (refused.status_code, "was never live" in refused.text) == (409, True)
    assert promoter.get(f"models/{browsed.classifier}/rollback").status_code == 409
    assert promoter.get("models/999/rollback").status_code == 404
    assert promoter.get("models/999/promote").status_code == 404
    assert list_decisions(browsed.shop) == []


@pytest.mark.parametrize("role", ["viewer", "user"])
def test_others_see_the_gates_but_no_buttons(
    visit: Visit, browsed: BrowsedShop, candidate: int, decision_dag: None, role: Role
) -> None:
    visitor = visit(role)
    page = visitor.get(f"models/{candidate}").text
    assert "accuracy has passed" in page
    assert "/promote" not in page
    for action in ("promote", "rollback"):
        assert visitor.get(f"models/{candidate}/{action}").status_code == 403
        assert visitor.post(f"models/{candidate}/{action}", {"reason": "x"}).status_code == 403
    assert list_decisions(browsed.shop) == []


def test_a_decision_whose_run_is_gone_is_told(visit: Visit, browsed: BrowsedShop, decision_dag: None) -> None:
    page = visit("viewer").get("models", decision=HOSTILE.replace("\0", "")).text
    assert "There is no decision" in page
    assert "<script>alert" not in page
