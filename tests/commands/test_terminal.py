"""No name that comes from a shop acts on the terminal that shows it."""

import logging

import pytest

from fixtures.catalog_rows import open_live_space
from fixtures.command_line import run_job
from fixtures.shop import Shop
from jobs.commands.terminal import HarmlessFormatter, show
from jobs.errors import EXIT_PERMANENT

HOSTILE = "red\x1b[2J \x9b31m\u202edress\r\b"
HARMLESS = "red\ufffd[2J \ufffd31m\ufffddress\ufffd\ufffd"


def test_what_would_act_on_a_terminal_is_replaced(capsys: pytest.CaptureFixture[str]) -> None:
    show(f"{HOSTILE}\n\tnaïve 写真")
    show(HOSTILE, err=True)
    assert capsys.readouterr() == (f"{HARMLESS}\n\tnaïve 写真\n", f"{HARMLESS}\n")
    record = logging.LogRecord("jobs", logging.INFO, "", 0, "found %s", (HOSTILE,), None)
    assert HarmlessFormatter("%(message)s").format(record) == f"found {HARMLESS}"


def test_the_error_of_a_command_is_harmless(shop: Shop) -> None:
    with shop.connections.engine.begin() as connection:
        open_live_space(connection, 3)
    answer = run_job("similar", HOSTILE, environment=shop.environment)
    assert answer.exit_code == EXIT_PERMANENT
    assert "[2J" in answer.error
    assert "\x1b" not in answer.error
