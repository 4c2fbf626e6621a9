"""What the documents name exists, and what has to be documented is."""

import re
from dataclasses import fields
from pathlib import Path

import pytest
import typer

from jobs import errors
from jobs.cli import app
from jobs.database.images import Discovery
from jobs.database.tagging_runs import ChunkCounts
from jobs.failures import DecodeReason, ReadReason
from jobs.retrain.gates.gates import GATES
from jobs.settings import PROJECT_ROOT

DOCUMENTS = sorted([*PROJECT_ROOT.glob("*.md"), *PROJECT_ROOT.glob("docs/**/*.md")])
SQL = "\n".join(path.read_text(encoding="utf-8") for path in sorted(PROJECT_ROOT.glob("sql/**/*.sql")))

each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)


def read_document(name: str) -> str:
    return (PROJECT_ROOT / "docs" / name).read_text(encoding="utf-8")


@each_document
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", document.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (document.parent / target).exists(), target


@pytest.mark.parametrize(("document", "max_lines"), [("README.md", 150), ("docs/architecture.md", 120)])
def test_pages_for_a_first_reading_stay_short(document: str, max_lines: int) -> None:
    assert len((PROJECT_ROOT / document).read_text(encoding="utf-8").splitlines()) <= max_lines


@each_document
def test_commands_exist(document: Path) -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    called = re.findall(r"(?:python -m jobs|[`/]catalog) ([a-z][a-z-]+)", document.read_text(encoding="utf-8"))
    assert set(called) <= set(commands)


@each_document
def test_make_targets_exist(document: Path) -> None:
    targets = re.findall(r"^([a-z-]+):", (PROJECT_ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    called = re.findall(r"(?:`|^ {4})make ([a-z-]+)", document.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(called) <= set(targets)


@each_document
def test_settings_exist(document: Path) -> None:
    example = (PROJECT_ROOT / ".env.example").read_text(encoding="utf-8")
    for name in re.findall(r"\b(?:CATALOG|TAGGING|POSTGRES)_[A-Z0-9_]+\b", document.read_text(encoding="utf-8")):
        assert f"# {name}=" in example, name


@each_document
def test_what_sql_is_asked_for_exists(document: Path) -> None:
    for name in set(re.findall(r"\bcatalog\.([a-z]\w+)\b", document.read_text(encoding="utf-8"))) - {"dump", "sql"}:
        assert re.search(rf"(?:TABLE|VIEW|FUNCTION) catalog\.{name}\b", SQL), name


def test_the_runbook_has_a_cure_for_every_reason_of_failure() -> None:
    runbook = read_document("runbook.md")
    assert [reason for reason in (*DecodeReason, *ReadReason) if f"`{reason}`" not in runbook] == []


def test_the_runbook_has_a_cure_for_every_gate() -> None:
    table = read_document("runbook.md").partition("## A gate failed")[2].partition("\n## ")[0]
    gates = {gate for of_kind in GATES.values() for gate in of_kind}
    assert [gate for gate in sorted(gates) if f"`{gate}`" not in table] == []


def test_every_exit_code_is_explained() -> None:
    table = read_document("reference.md").partition("## Exit codes")[2].partition("\n## ")[0]
    for code in (errors.EXIT_RETRY, errors.EXIT_PERMANENT, errors.EXIT_TERMINATED):
        assert f"\n| {code} |" in table


def test_every_stage_is_in_the_architecture() -> None:
    text = read_document("architecture.md")
    modules = sorted((PROJECT_ROOT / "jobs").rglob("*.py"))
    stages = [path.name for path in modules if path.read_text(encoding="utf-8").startswith('"""Stage ')]
    assert len(stages) >= 12
    assert [name for name in stages if f"[{name}](" not in text] == []


def test_the_counts_of_discovery_and_report_are_in_the_glossary() -> None:
    glossary = read_document("glossary.md")
    words = {field.name for record in (Discovery, ChunkCounts) for field in fields(record)}
    counts = {word for word in words if not word.endswith(("_seconds", "_reasons", "_counts"))} - {"known"}
    assert len(counts) == 12
    assert [word for word in sorted(counts) if not re.search(rf"\b{word}\b", glossary)] == []
