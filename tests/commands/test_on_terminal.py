"""What people see: tables and bars on a terminal, JSON in a pipe."""

import json
import re

import pytest

from fixtures.command_line import FinishedCommand, run_job, run_on_terminal
from fixtures.shop import Shop, TinyModels, promote_tiny_models

LOG_LINE = re.compile(r"\d\d:\d\d:\d\d INFO \S.*")


def read_fields(answer: FinishedCommand) -> dict[str, str]:
    """Return the fields of a report."""
    parts = [re.split(r" {2,}", line.strip(), maxsplit=1) for line in answer.messages]
    return {part[0]: part[1] for part in parts if len(part) == 2}


@pytest.fixture(scope="module")
def first_run(lasting_shop: Shop, tiny_models: TinyModels) -> FinishedCommand:
    """Tag six images, with standard output in a pipe and the messages on a terminal."""
    promote_tiny_models(lasting_shop, tiny_models).put_images(6)
    return run_on_terminal("ingest", environment=lasting_shop.environment, is_output_piped=True)


def test_bars_and_intact_log_lines_are_on_the_terminal_and_json_in_the_pipe(first_run: FinishedCommand) -> None:
    assert first_run.exit_code == 0, first_run.messages
    assert json.loads(first_run.output.splitlines()[-1])["tagged"] == 6
    assert any(re.match(r" tag_shard\[0\] ━+ loading the models", line) for line in first_run.messages)
    logged = [line for line in first_run.messages if " INFO " in line]
    assert any(line.endswith("INFO 6 images are due. " + line.partition("due. ")[2]) for line in logged)
    assert all(LOG_LINE.fullmatch(line) for line in logged), logged


def test_a_report_on_a_terminal_is_a_table(lasting_shop: Shop, first_run: FinishedCommand) -> None:
    run_id = json.loads(first_run.output.splitlines()[-1])["run_id"]
    answer = run_on_terminal("report", "--run", run_id, environment=lasting_shop.environment)
    assert answer.exit_code == 0, answer.messages
    assert not any("{" in line for line in answer.messages)
    fields = read_fields(answer)
    assert (fields["state"], fields["images"], fields["tagged"]) == ("succeeded", "6", "6")


@pytest.mark.parametrize("words", [("--json", "migrate"), ("migrate", "--json")], ids=" ".join)
def test_json_on_a_terminal(words: tuple[str, ...], shop: Shop) -> None:
    answer = run_on_terminal(*words, environment=shop.environment)
    assert json.loads(answer.messages[-1])["applied"] == []


@pytest.mark.usefixtures("first_run")
def test_search_results_are_json_in_a_pipe_and_lines_on_a_terminal(lasting_shop: Shop) -> None:
    answer = run_job("search", "hat", "-k", "2", environment=lasting_shop.environment)
    assert [set(hit) >= {"product_id", "similarity"} for hit in json.loads(answer.output)] == [True, True]
    shown = run_on_terminal("search", "hat", "-k", "2", environment=lasting_shop.environment).messages
    assert [line[:4] for line in shown if re.match(" +[0-9]+[.] ", line)] == ["  1.", "  2."]
    unknown = run_job("search", "hat", "--category", "dres", environment=lasting_shop.environment)
    assert unknown.error == "error: there is no category 'dres'. Did you mean dress?"
    wrong = run_job("similar", "p000", environment=lasting_shop.environment)
    assert wrong.error.startswith("error: there is no product 'p000'. Did you mean p000")


def test_an_error_on_a_terminal_is_one_line(shop: Shop) -> None:
    answer = run_on_terminal("report", "--run", "nope", environment=shop.environment)
    assert answer.exit_code == 78
    assert [line for line in answer.messages if line] == [
        "error: run 'nope' was never planned. There is no ingest run yet"
    ]
