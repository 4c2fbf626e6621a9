"""Webhooks get every change at least once, signed; one that fails blocks neither the others nor itself forever."""

import hashlib
import hmac
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import patch

import pytest
from sqlalchemy import text

from fixtures.command_line import FinishedCommand, run_job
from fixtures.job_processes import wait_until
from jobs.database.changes import read_consumer, read_end
from jobs.database.dead_letters import find_retry, postpone_retry
from jobs.delivery.webhooks import deliver_changes, sign
from jobs.errors import EXIT_PERMANENT, PermanentError, RefusedError
from jobs.setting_types import Webhook
from jobs.settings import make_settings
from tests.delivery.conftest import TaggedCatalog
from tests.delivery.receiver import Receiver, run_receiver
from tests.test_cli import make_environment

SECRET = "a secret of the shop".replace(" ", "-")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with run_receiver() as receiver:
        yield receiver


def make_variable(*webhooks: tuple[str, str]) -> str:
    return json.dumps([{"name": name, "url": url, "secret": SECRET} for name, url in webhooks])


def deliver(catalog: TaggedCatalog, *webhooks: tuple[str, str]) -> FinishedCommand:
    return run_job("deliver", environment=catalog.environment | {"CATALOG_WEBHOOKS": make_variable(*webhooks)})


def make_webhooks(*webhooks: tuple[str, str]) -> tuple[Webhook, ...]:
    return make_settings(make_environment(CATALOG_WEBHOOKS=make_variable(*webhooks))).delivery.webhooks


def test_changes_are_posted_signed_and_once(catalog: TaggedCatalog, receiver: Receiver) -> None:
    assert deliver(catalog, ("shop", receiver.url)).exit_code == 0
    assert receiver.bodies == []
    catalog.label(2, "hat")
    for _ in range(2):
        finished = deliver(catalog, ("shop", receiver.url))
        assert finished.exit_code == 0, finished.messages
    assert [(change["product_id"], change["product"]["category"]) for change in receiver.changes] == [("p2", "hat")]
    (headers,), (body,) = receiver.headers, receiver.bodies
    timestamp = headers["Catalog-Timestamp"]
    assert abs(int(timestamp) - time.time()) < 600
    expected = hmac.new(SECRET.encode(), f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()
    assert headers["Catalog-Signature"] == f"sha256={expected}"
    assert sign("another secret, longer", timestamp, body) != expected


def test_without_webhooks_nothing_happens(catalog: TaggedCatalog) -> None:
    finished = run_job("deliver", "--follow", environment=catalog.environment)
    assert json.loads(finished.output) == {"webhooks": []}


def test_a_failing_webhook_keeps_its_changes_and_blocks_no_other(catalog: TaggedCatalog, receiver: Receiver) -> None:
    with run_receiver() as broken:
        broken.status = 500
        both = (("broken", broken.url), ("shop", receiver.url))
        deliver(catalog, *both)
        catalog.label(1, "hat")
        finished = deliver(catalog, *both)
        assert finished.exit_code == 0
        errors = {report["name"]: report["error"] for report in json.loads(finished.output)["webhooks"]}
        assert errors == {"broken": "status 500", "shop": None}
        assert not any(SECRET in line for line in (finished.output, *finished.messages))
        assert len(receiver.changes) == 1
        broken.status = 200
        assert deliver(catalog, *both).exit_code == 0
        assert [change["product_id"] for change in broken.changes] == ["p1", "p1"]
    assert len(receiver.changes) == 1


def test_a_slow_webhook_delays_no_other(catalog: TaggedCatalog, receiver: Receiver) -> None:
    with run_receiver() as slow, ThreadPoolExecutor(1) as thread:
        webhooks = make_webhooks(("slow", slow.url), ("shop", receiver.url))
        deliver_changes(catalog.engine, webhooks, follow=False)
        slow.is_open.clear()
        catalog.label(1, "hat")
        delivering = thread.submit(deliver_changes, catalog.engine, webhooks, follow=False)
        wait_until(lambda: len(slow.bodies) == len(receiver.bodies) == 1)
        assert not delivering.done()
        slow.is_open.set()
        assert [report.accepted for report in delivering.result()] == [1, 1]


def test_a_request_has_a_deadline(catalog: TaggedCatalog, receiver: Receiver) -> None:
    webhooks = make_webhooks(("shop", receiver.url))
    deliver_changes(catalog.engine, webhooks, follow=False)
    receiver.is_open.clear()
    catalog.label(1, "hat")
    with patch("jobs.delivery.webhooks.REQUEST_SECONDS", 0.2):
        (report,) = deliver_changes(catalog.engine, webhooks, follow=False)
    assert report.error == "no response within 0.2 s"


def test_a_webhook_that_has_missed_changes_blocks_no_other(catalog: TaggedCatalog, receiver: Receiver) -> None:
    late, shop = make_webhooks(("late", receiver.url), ("shop", receiver.url))
    deliver_changes(catalog.engine, (late,), follow=False)
    with catalog.engine.begin() as connection:
        connection.execute(
            text("INSERT INTO catalog.change_horizon (transaction_id, change_id) SELECT pg_current_xact_id(), 0")
        )
    deliver_changes(catalog.engine, (shop,), follow=False)
    catalog.label(1, "hat")
    reports = deliver_changes(catalog.engine, (late, shop), follow=False)
    assert [report.accepted for report in reports] == [0, 1]
    assert "cannot continue" in str(reports[0].error)


def test_an_unreachable_webhook_is_reported(catalog: TaggedCatalog) -> None:
    webhooks = make_webhooks(("gone", "http://127.0.0.1:9/"))
    deliver_changes(catalog.engine, webhooks, follow=False)
    catalog.label(1, "hat")
    (report,) = deliver_changes(catalog.engine, webhooks, follow=False)
    assert "connection attempts failed" in str(report.error)


def test_what_is_refused_for_an_hour_becomes_a_dead_letter(catalog: TaggedCatalog, receiver: Receiver) -> None:
    shop = ("shop", receiver.url)
    deliver(catalog, shop)
    receiver.status = 422
    catalog.label(1, "hat")
    deliver(catalog, shop)
    with catalog.engine.begin() as connection:
        assert connection.scalar(text("SELECT count(*) FROM catalog.dead_letters")) == 0
        connection.execute(text("UPDATE catalog.change_consumers SET failing_since = now() - interval '61 minutes'"))
    finished = deliver(catalog, shop)
    assert finished.exit_code == EXIT_PERMANENT
    assert "shop (status 422)" in finished.error
    (letter,) = json.loads(run_job("dead-letters", "list", environment=catalog.environment).output)
    assert (letter["webhook"], letter["changes"], letter["error"]) == ("shop", 1, "status 422")

    # The feed goes on. A retry sends the state of today, not of the time of the failure.
    receiver.status = 204
    receiver.bodies.clear()
    catalog.label(1, "shoes")
    deliver(catalog, shop)
    assert [change["product"]["category"] for change in receiver.changes] == ["shoes"]
    retried = run_job("dead-letters", "retry", "shop", environment=catalog.environment)
    assert json.loads(retried.output) == {"dead_letters": 1}
    receiver.status = 500
    (report,) = json.loads(deliver(catalog, shop).output)["webhooks"]
    assert report["error"] == "status 500"
    receiver.status = 204
    receiver.bodies.clear()
    assert deliver(catalog, shop).exit_code == 0
    assert [change["product"]["category"] for change in receiver.changes] == ["shoes"]
    assert json.loads(run_job("dead-letters", "list", environment=catalog.environment).output) == []


def test_a_dead_letter_that_is_refused_again_does_not_block_others(catalog: TaggedCatalog) -> None:
    with catalog.engine.begin() as connection:
        first, second = (
            connection.scalar(
                text("""
                    INSERT INTO catalog.dead_letters (webhook, changes, error, retry_requested_at)
                    VALUES ('shop', '[]', 'e', now()) RETURNING dead_letter_id
                """)
            )
            for _ in range(2)
        )
        assert find_retry(connection, "shop") == first
        postpone_retry(connection, first, "status 422")
        assert find_retry(connection, "shop") == second


def test_following_continues_after_an_error(catalog: TaggedCatalog, receiver: Receiver) -> None:
    webhooks = make_webhooks(("shop", receiver.url))
    deliver_changes(catalog.engine, webhooks, follow=False)
    catalog.label(1, "hat")
    with (
        patch("jobs.delivery.webhooks.MAX_PAUSE_SECONDS", 0.05),
        patch("jobs.delivery.webhooks.is_stop_requested", lambda: bool(receiver.bodies)),
        patch("jobs.delivery.feed.require_complete", side_effect=[RefusedError("cannot continue"), None]),
    ):
        (report,) = deliver_changes(catalog.engine, webhooks, follow=True)
    assert (report.accepted, report.error, report.is_stuck) == (1, None, False)


def test_following_posts_changes_as_they_come(catalog: TaggedCatalog, receiver: Receiver) -> None:
    webhooks = make_webhooks(("shop", receiver.url))
    deliver_changes(catalog.engine, webhooks, follow=False)
    labeling = threading.Timer(0.3, catalog.label, (1, "hat"))
    labeling.start()
    with patch("jobs.delivery.webhooks.is_stop_requested", lambda: bool(receiver.bodies)):
        (report,) = deliver_changes(catalog.engine, webhooks, follow=True)
    labeling.join()
    assert report.accepted == len(receiver.changes) == 1
    with catalog.engine.connect() as connection:
        cursor = read_consumer(connection, "webhook/shop")
        assert cursor is not None
        assert cursor < read_end(connection)


@pytest.mark.parametrize(
    "value",
    [
        "[]x",
        '[{"name": "a", "url": "ftp://x", "secret": "1234567890123456"}]',
        '[{"name": "a", "url": "https://x", "secret": "short-hush"}]',
        '[{"name": "a/b", "url": "https://x", "secret": "1234567890123456"}]',
        '[{"name": "a", "url": "https://x"}]',
        json.dumps([{"name": "a", "url": "https://x", "secret": "1234567890123456"}] * 2),
    ],
)
def test_wrong_settings_are_refused_without_showing_secrets(value: str) -> None:
    with pytest.raises(PermanentError, match="CATALOG_WEBHOOKS") as refused:
        make_settings(make_environment(CATALOG_WEBHOOKS=value))
    assert "hush" not in str(refused.value)
    assert "1234567890" not in str(refused.value)
