"""The page of an evaluation, which comes from a bucket."""

import hashlib
from collections.abc import Callable

import pytest
from sqlalchemy import text

from fixtures.gate_results import store_gate_results
from jobs.database.evaluations import store_page_hash
from jobs.storage.locations import S3Uri
from tests.plugins.pages.conftest import BrowsedShop, Role, Visitor

Visit = Callable[[Role | None], Visitor]
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
def test_it_is_shown_without_any_power(visit: Visit) -> None:
    answer = visit("viewer").get("evaluations/classifier", run="judged")
    assert (answer.status_code, answer.content) == (200, PAGE)
    policy = answer.headers["content-security-policy"].split("; ")
    assert {"sandbox", "default-src 'none'", "form-action 'none'", "frame-ancestors 'self'"} < set(policy)
    assert not [rule for rule in policy if rule.startswith("script-src") or "allow-" in rule]
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "same-origin"


def test_another_page_in_its_place_is_not_shown(visit: Visit, browsed: BrowsedShop, page: S3Uri) -> None:
    browsed.shop.connections.store.write(page, PAGE.replace(b"Evaluation", b"Passed"))
    answer = visit("viewer").get("evaluations/classifier", run="judged")
    assert answer.status_code == 409
    assert "differs from the page that the gates wrote" in answer.text


def test_a_page_that_is_gone_or_was_never_written_is_told(visit: Visit, browsed: BrowsedShop, page: S3Uri) -> None:
    store = browsed.shop.connections.store
    store._client.delete_object(Bucket=page.bucket, Key=page.key)
    assert "no longer in the bucket" in visit("viewer").get("evaluations/classifier", run="judged").text
    missing = visit("viewer").get("evaluations/classifier", run="no such")
    assert missing.status_code == 404
    assert "There is no evaluation page yet" in missing.text
