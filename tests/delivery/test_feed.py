"""`catalog changes` prints every change at least once, and remembers only what was written."""

import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text

from fixtures.command_line import run_job
from fixtures.job_processes import wait_until
from jobs.database.changes import Cursor, read_consumer
from jobs.delivery.feed import open_consumer, print_changes
from jobs.errors import EXIT_PERMANENT, EXIT_RETRY, EXIT_TERMINATED
from tests.delivery.conftest import TaggedCatalog


def run_changes(catalog: TaggedCatalog, *words: str) -> list[dict[str, object]]:
    """Return the lines of a call."""
    finished = run_job("changes", "--consumer", "shop", *words, environment=catalog.environment)
    assert finished.exit_code == 0, finished.messages
    return [json.loads(line) for line in finished.output.splitlines()]


def test_a_new_consumer_starts_now_and_reads_each_change_once(catalog: TaggedCatalog) -> None:
    assert run_changes(catalog) == []
    catalog.label(2, "hat")
    (line,) = run_changes(catalog)
    assert line["product_id"] == "p2"
    assert line["kind"] == "label"
    assert isinstance(line["product"], dict)
    assert {name: line["product"][name] for name in ("category", "source")} == {"category": "hat", "source": "human"}
    assert run_changes(catalog) == []
    again = run_changes(catalog, "--since", "0-0")
    assert again[-1] == line
    assert [one["kind"] for one in again].count("tag") == 3
    after_first = run_changes(catalog, "--since", str(again[0]["cursor"]))
    assert after_first == again[1:]


def test_lines_that_were_not_written_are_read_again(catalog: TaggedCatalog) -> None:
    run_changes(catalog)
    catalog.label(1, "hat")

    def fail(lines: str) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        print_changes(catalog.engine, "shop", None, fail, bool)
    assert [line["product_id"] for line in run_changes(catalog)] == ["p1"]


def test_two_processes_cannot_read_as_one_consumer(catalog: TaggedCatalog) -> None:
    with open_consumer(catalog.engine, "shop"):
        finished = run_job("changes", "--consumer", "shop", environment=catalog.environment)
    assert (finished.exit_code, finished.output) == (EXIT_RETRY, "")
    assert "another process" in finished.error
    assert run_changes(catalog) == []


def test_a_consumer_that_has_missed_changes_is_refused(catalog: TaggedCatalog) -> None:
    run_changes(catalog, "--since", "0-0")
    with catalog.engine.begin() as connection:
        connection.execute(
            text("INSERT INTO catalog.change_horizon (transaction_id, change_id) VALUES ('999999999', 1)")
        )
    finished = run_job("changes", "--consumer", "shop", environment=catalog.environment)
    assert finished.exit_code == EXIT_PERMANENT
    assert "Export again" in finished.error


def test_following_ends_with_sigterm_after_a_written_line(catalog: TaggedCatalog) -> None:
    run_changes(catalog)

    def read_place() -> Cursor | None:
        with catalog.engine.connect() as connection:
            return read_consumer(connection, "shop")

    def label_and_stop(before: Cursor | None) -> None:
        catalog.label(3, "hat")
        try:
            # By then, the command handles the signal.
            wait_until(lambda: read_place() != before)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    with ThreadPoolExecutor(1) as thread:
        stopping = thread.submit(label_and_stop, read_place())
        finished = run_job("changes", "--consumer", "shop", "--follow", environment=catalog.environment)
        stopping.result()
    (line,) = map(json.loads, finished.output.splitlines())
    assert (finished.exit_code, line["product_id"]) == (EXIT_TERMINATED, "p3")
    assert line["cursor"] == str(read_place())


def test_a_consumer_has_a_simple_name(catalog: TaggedCatalog) -> None:
    finished = run_job("changes", "--consumer", "webhook/shop", environment=catalog.environment)
    assert finished.exit_code == 2
