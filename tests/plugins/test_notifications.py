"""Sending to real servers on loopback, and to servers that do not answer."""

import json
import logging
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING
from unittest.mock import patch

import pytest

from fixtures.notification_receivers import Receivers, run_receivers

if TYPE_CHECKING:
    from catalog_airflow.notifications import Message

    from jobs.setting_types import Level


# Apprise imports its plugins when it sends the first message.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def servers() -> Iterator[Receivers]:
    with run_receivers() as receivers:
        yield receivers


@pytest.fixture
def receivers(servers: Receivers) -> Receivers:
    servers.mails.clear()
    servers.posts.clear()
    return servers


def make_message(level: "Level" = "info", what: str = "It happened") -> "Message":
    from catalog_airflow.notifications import Message

    return Message(level, what, "Because {{ 1 + 1 }}", "Look", "/airflow/catalog/overview")


def send(monkeypatch: pytest.MonkeyPatch, message: "Message | Exception | None", *urls: str) -> None:
    from catalog_airflow.notifications import notify

    def describe(_: object) -> "Message | None":
        if isinstance(message, Exception):
            raise message
        return message

    monkeypatch.setenv("CATALOG_NOTIFY_URLS", json.dumps(urls))
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://shop.example/airflow/")
    notify(describe)({})


def test_a_message_says_what_why_what_to_do_and_where(receivers: Receivers, monkeypatch: pytest.MonkeyPatch) -> None:
    send(monkeypatch, make_message(), receivers.http_url, receivers.mail_url)
    text = "Because {{ 1 + 1 }}\n\nLook\n\nhttps://shop.example/airflow/catalog/overview"
    assert [(post.title, post.level, post.text) for post in receivers.posts] == [("It happened", "info", text)]
    assert [(mail.title, mail.text.split()) for mail in receivers.mails] == [("It happened", text.split())]


@pytest.mark.parametrize(
    ("level", "received"),
    [("info", ["info"]), ("warning", ["info", "warning"]), ("error", ["info", "warning", "error"])],
)
def test_a_url_receives_its_level_and_those_above(
    receivers: Receivers, monkeypatch: pytest.MonkeyPatch, level: "Level", received: list[str]
) -> None:
    urls = [receivers.http_url, *(f"{least}:{receivers.http_url}" for least in ("warning", "error"))]
    send(monkeypatch, make_message(level), *urls)
    assert len(receivers.posts) == len(received)
    assert {post.level for post in receivers.posts} == {"failure" if level == "error" else level}


def test_no_url_and_no_message_send_nothing(receivers: Receivers, monkeypatch: pytest.MonkeyPatch) -> None:
    send(monkeypatch, make_message())
    send(monkeypatch, None, receivers.http_url)
    assert receivers.posts == []


@pytest.mark.parametrize(
    ("urls", "line"),
    [
        (["json://127.0.0.1:9/?token=hush"], "'It happened' was not sent to json: A Connection error occurred"),
        (["nonsense://hush"], "'It happened' was not sent to nonsense: Apprise does not accept this URL"),
        (["tgram://hush/x"], "'It happened' was not sent to tgram: Apprise does not accept this URL"),
        (["hush"], "no notification was sent, because it failed with ConfigurationError: CATALOG_NOTIFY_URLS"),
    ],
)
def test_a_failure_is_one_line_and_does_not_stop_the_others(
    receivers: Receivers, monkeypatch: pytest.MonkeyPatch, urls: list[str], line: str, caplog: pytest.LogCaptureFixture
) -> None:
    is_valid = urls != ["hush"]
    with caplog.at_level(logging.WARNING):
        send(monkeypatch, make_message(), *urls, *([receivers.http_url] if is_valid else []))
    # pytest also records what Apprise logs, which the test in a real Airflow shows to be in no log.
    assert [line in record.getMessage() for record in caplog.records if record.name != "apprise"] == [True]
    assert len(receivers.posts) == is_valid
    assert not any("hush" in record.getMessage() for record in caplog.records if record.name != "apprise")


def test_an_event_that_cannot_be_described_is_one_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    send(monkeypatch, KeyError("drift"))
    assert [record.getMessage() for record in caplog.records] == [
        "no notification was sent, because it failed with KeyError: 'drift'"
    ]


def test_a_server_that_does_not_respond_is_given_up_and_delays_no_other(
    receivers: Receivers, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, patch("catalog_airflow.notifications.SEND_SECONDS", 2):
        # The time that Apprise would wait by itself. The server that responds is not last in line.
        send(monkeypatch, make_message(), f"json://127.0.0.1:{silent.getsockname()[1]}/?rto=60", receivers.http_url)
    assert "was not sent to json: Service 'JSON' did not finish within 2" in caplog.text
    assert len(receivers.posts) == 1
