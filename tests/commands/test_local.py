"""Where the options of the local stack come from."""

import json
from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

from fixtures.command_line import run_job, run_on_terminal
from jobs.commands.local import app

WRONG_USAGE = 2


def read_ports(*words: str) -> dict[str, Any]:
    """The ports that ``stack up`` would take."""
    command = typer.main.get_command(app)
    for name in ("stack", "up"):
        command = command.commands[name]  # type: ignore[attr-defined]
    parameters = command.make_context("up", list(words)).params
    return {name: value for name, value in parameters.items() if name.endswith("_port")}


def test_without_any_setting_ports_are_left_to_the_stack() -> None:
    assert read_ports() == dict.fromkeys(("postgres_port", "s3_port", "airflow_port", "query_port"))


def test_ports_come_from_the_line_the_environment_and_the_file(env_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("CATALOG_POSTGRES_PORT", "CATALOG_S3_PORT", "CATALOG_AIRFLOW_PORT", "CATALOG_SERVE_PORT")
    env_file.write_text("".join(f"{name}=1\n" for name in names))
    monkeypatch.setenv("CATALOG_S3_PORT", "2")
    monkeypatch.setenv("CATALOG_AIRFLOW_PORT", "2")
    assert read_ports("--airflow-port", "3") == {"postgres_port": 1, "s3_port": 2, "airflow_port": 3, "query_port": 1}


def test_a_wrong_port_in_the_file_is_wrong_usage(env_file: Path) -> None:
    env_file.write_text("CATALOG_S3_PORT=many\n")
    answer = CliRunner().invoke(app, ["stack", "up"])
    assert answer.exit_code == WRONG_USAGE
    assert "CATALOG_S3_PORT" in answer.stderr


def test_the_status_as_json_contains_no_password() -> None:
    answer = run_job("stack", "status", environment={})
    status = json.loads(answer.output)
    assert set(status) == {"services", "airflow_url"}
    assert set(status["services"].values()) == {None}
    shown = run_on_terminal("stack", "status", environment={}).messages
    assert sum("not running" in line for line in shown) == len(status["services"])
