"""Model pages: promotions, rollbacks and evaluation pages."""

import hashlib
import re
import warnings
from typing import Any

import pytest
from sqlalchemy import text

from fixtures.catalog_rows import open_live_space, register_model
from fixtures.gate_results import GateResults, store_gate_results
from fixtures.shop import Shop
from jobs.database.evaluations import store_page_hash
from jobs.database.promotions import Switch, insert_switch
from jobs.database.spaces import drop_space, find_live_space
from jobs.retag.rollback import roll_back
from jobs.retrain.promote import promote_candidate
from jobs.settings import PROJECT_ROOT
from jobs.storage.locations import S3Uri
from tests.plugins.pages.conftest import HOSTILE, BrowsedShop, Role, Visit, read_text


@pytest.fixture(scope="session")
def decision_dag(airflow_accounts: Any) -> None:
    """Airflow's database with the parsed DAG that carries out decisions."""
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
    """Return the decisions, latest first, and check that each started a run in the name of the same person."""
    from airflow.models import DagRun

    decisions = shop.query("SELECT * FROM catalog.champion_decisions ORDER BY decision_id DESC")
    runs = sorted(DagRun.find(dag_id="model_decision"), key=lambda run: -run.id)[: len(decisions)]
    assert [(run.conf["decision"], run.triggering_user_name) for run in runs] == [(row[0], row[5]) for row in decisions]
    return [row[1:6] for row in decisions]


@pytest.fixture
def candidate(browsed: BrowsedShop) -> int:
    """A classifier that passed its gates and gives one of four images another category."""
    with browsed.shop.connections.engine.begin() as connection:
        version = register_model(connection, "classifier")
        store_gate_results(connection, "run/1", "classifier", version)
        connection.exec_driver_sql(f"""
            INSERT INTO catalog.image_tags
            SELECT image_id, {version}, build_id,
                   CASE image_id WHEN {browsed.image_ids[0]} THEN 'hat' ELSE category END,
                   confidence, top_3, probabilities, content_hash
            FROM catalog.image_tags
        """)
    return version


def test_a_promotion_is_shown_and_started(
    visit: Visit, browsed: BrowsedShop, candidate: int, decision_dag: None
) -> None:
    promoter = visit("op")
    assert "Promote…" in promoter.get("models").text
    page = read_text(promoter.get(f"models/{candidate}/promote").text)
    assert f"Promote classifier {candidate} ?" in page or f"Promote classifier {candidate}?" in page
    assert "25 % of the 4 images that both versions have tagged" in page
    assert "80 % of 5 images" in page
    assert "blast_radius has passed" in page
    answer = promoter.post(f"models/{candidate}/promote")
    assert answer.status_code == 303
    assert list_decisions(browsed.shop) == [("classifier", "run/1", None, "passed its gates", "op@example.test")]
    waiting = promoter.client.get(answer.headers["location"])
    assert "In progress (queued)" in waiting.text
    assert 'http-equiv="refresh"' in waiting.text


def test_a_rollback_is_shown_and_started(
    visit: Visit, browsed: BrowsedShop, candidate: int, decision_dag: None
) -> None:
    promote_candidate(browsed.shop.connections, "run/1", "classifier", "tester")
    promoter = visit("op")
    assert "This is the champion" in promoter.get(f"models/{candidate}").text
    with browsed.shop.connections.engine.begin() as connection:
        insert_switch(connection, Switch("classifier", candidate, browsed.classifier))
    assert f"Roll back to classifier {browsed.classifier}" in promoter.get("models").text
    page = read_text(promoter.get(f"models/{browsed.classifier}/rollback").text)
    assert "25 % of the 4 images that both versions have tagged" in page
    assert promoter.post(f"models/{browsed.classifier}/rollback", {"reason": "  "}).status_code == 422
    answer = promoter.post(f"models/{browsed.classifier}/rollback", {"reason": HOSTILE})
    assert answer.status_code == 303
    assert list_decisions(browsed.shop) == [("classifier", None, browsed.classifier, HOSTILE, "op@example.test")]
    # Do what the job does, and check the history.
    roll_back(browsed.shop.connections, "classifier", browsed.classifier, "op@example.test", HOSTILE.replace("%00", ""))
    history = promoter.get("models").text
    assert "rollback" in history
    assert "op@example.test: &#34;&#39;&gt;&lt;script&gt;" in history
    assert "<script>alert" not in history
    assert "was rolled back" in promoter.get(f"models/{candidate}").text


def test_models_are_shown_when_the_space_to_return_to_was_dropped(visit: Visit, browsed: BrowsedShop) -> None:
    with browsed.shop.connections.engine.begin() as connection:
        first = find_live_space(connection)
        assert first is not None
        open_live_space(connection, 2)
        drop_space(connection, first)
    assert visit("op").get("models").status_code == 200


@pytest.mark.parametrize("results", [GateResults(failed="accuracy"), GateResults(undecided="memory")])
def test_a_candidate_that_failed_its_gates_cannot_be_promoted(
    visit: Visit, browsed: BrowsedShop, decision_dag: None, results: GateResults
) -> None:
    with browsed.shop.connections.engine.begin() as connection:
        version = register_model(connection, "classifier")
        store_gate_results(connection, "run/2", "classifier", version, results)
    promoter = visit("admin")
    assert "Cannot be promoted" in promoter.get(f"models/{version}").text
    assert "Promote…" not in promoter.get("models").text
    for answer in (promoter.get(f"models/{version}/promote"), promoter.post(f"models/{version}/promote")):
        assert answer.status_code == 409
        assert (results.failed or results.undecided or "") in answer.text
    assert list_decisions(browsed.shop) == []


def test_a_version_that_was_never_live_cannot_be_restored(
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
def test_viewers_see_the_gates_without_buttons(
    visit: Visit, browsed: BrowsedShop, candidate: int, decision_dag: None, role: Role
) -> None:
    visitor = visit(role)
    page = visitor.get(f"models/{candidate}").text
    assert "accuracy has passed" in page
    assert "torch fp32 on cpu admitted not compared fixtures" in read_text(page)
    assert "/promote" not in page
    for action in ("promote", "rollback"):
        assert visitor.get(f"models/{candidate}/{action}").status_code == 403
        assert visitor.post(f"models/{candidate}/{action}", {"reason": "x"}).status_code == 403
    assert list_decisions(browsed.shop) == []


def test_a_decision_without_a_run_is_reported(visit: Visit, browsed: BrowsedShop, decision_dag: None) -> None:
    page = visit("viewer").get("models", decision=HOSTILE.replace("\0", "")).text
    assert re.search(r"The decision .* does not exist", page)
    assert "<script>alert" not in page


PAGE = b"<h1>Evaluation</h1><form action=https://elsewhere.example><script>alert(1)</script></form>"


@pytest.fixture
def page(browsed: BrowsedShop) -> S3Uri:
    """Where the page is that the gates wrote of a run named ``judged``."""
    connections = browsed.shop.connections
    page = connections.artifacts / "evaluations/judged/page.html"
    connections.store.write(page, PAGE)
    with connections.engine.begin() as connection:
        evaluation_id = store_gate_results(connection, "judged", "classifier", browsed.classifier)
        connection.execute(
            text("UPDATE catalog.evaluations SET artifact_uri = :uri"), {"uri": str(page).rpartition("/")[0]}
        )
        store_page_hash(connection, evaluation_id, hashlib.sha256(PAGE).digest())
    return page


@pytest.mark.usefixtures("page")
def test_an_evaluation_page_runs_in_a_sandbox(visit: Visit) -> None:
    answer = visit("viewer").get("evaluations/classifier", run="judged")
    assert (answer.status_code, answer.content) == (200, PAGE)
    policy = answer.headers["content-security-policy"].split("; ")
    assert {"sandbox allow-same-origin", "default-src 'none'", "form-action 'none'"} < set(policy)
    assert "frame-ancestors 'self'" in policy
    assert not [rule for rule in policy if rule.startswith("script-src")]
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "same-origin"


def test_a_replaced_evaluation_page_is_not_shown(visit: Visit, browsed: BrowsedShop, page: S3Uri) -> None:
    browsed.shop.connections.store.write(page, PAGE.replace(b"Evaluation", b"Passed"))
    answer = visit("viewer").get("evaluations/classifier", run="judged")
    assert answer.status_code == 409
    assert "differs from the page that the gates wrote" in answer.text


def test_a_missing_evaluation_page_is_reported(visit: Visit, browsed: BrowsedShop, page: S3Uri) -> None:
    store = browsed.shop.connections.store
    store._client.delete_object(Bucket=page.bucket, Key=page.key)
    assert "no longer in the bucket" in visit("viewer").get("evaluations/classifier", run="judged").text
    missing = visit("viewer").get("evaluations/classifier", run="no such")
    assert missing.status_code == 404
    assert "There is no evaluation page yet" in missing.text
