"""docs/benchmarks.md shows the committed results of the benchmarks."""

import json
import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from benchmarks import results
from benchmarks.report import PAGE, SECTIONS, render_page
from benchmarks.results import RESULTS, Result, Row, format_range, format_table, publish, read_result
from jobs.settings import PROJECT_ROOT

MAX_LINES = 200
LINK = re.compile(r"benchmarks\.md#([\w-]+)")


def test_the_page_is_what_make_report_generates() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == render_page()
    assert len(page.splitlines()) <= MAX_LINES


def test_every_result_is_on_the_page() -> None:
    assert {path.stem for path in RESULTS.glob("*.json")} == set(SECTIONS)


@pytest.mark.parametrize("name", SECTIONS)
def test_commands_of_results_exist(name: str) -> None:
    command = read_result(name).command.split()
    assert command[:2] == ["python", "-m"]
    assert find_spec(command[2]), command
    assert command[2].endswith(name)


def test_links_lead_to_sections_of_the_page() -> None:
    titles = re.findall(r"^#+ (.+)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
    documents = [*PROJECT_ROOT.glob("*.md"), *PROJECT_ROOT.glob("docs/**/*.md")]
    links = {link for document in documents for link in LINK.findall(document.read_text(encoding="utf-8"))}
    assert links
    assert links <= anchors


def test_publish_writes_a_result_that_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    monkeypatch.setattr(results, "describe_command", lambda: "python -m benchmarks.ingest.throughput --images 50")
    rows: list[Row] = [{"system": "ours", "images/s": 26.3}, {"system": "theirs", "images/s": None, "note": "absent"}]
    publish("Title", "What was measured.", rows, targets="30", packages=["numpy"], details=[{"a": 1}])
    result = read_result("throughput")
    assert isinstance(result, Result)
    assert (result.title, result.measured, result.targets) == ("Title", "What was measured.", "30")
    assert (result.rows, result.details) == (rows, [{"a": 1}])
    assert {"commit", "numpy"} == set(result.versions)
    assert json.loads((tmp_path / "throughput.json").read_text())["command"] == result.command


def test_a_table_has_a_column_for_each_key() -> None:
    assert format_table([{"a": 1234, "b": None}, {"a": "x", "c": 0.5}]) == [
        "| a | b | c |",
        "| --- | --- | --- |",
        "| 1,234 |  |  |",
        "| x |  | 0.5 |",
    ]
    assert format_table([]) == []


def test_a_range_needs_several_values() -> None:
    assert format_range([2.0, 1.0, 3.0], 1) == "2.0 (1.0 to 3.0)"
    assert format_range([2.0], 1) == "2.0"
