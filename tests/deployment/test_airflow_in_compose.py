"""Whether the Airflow that is installed knows the commands and settings that docker-compose.yaml uses."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.deployment.compose_file import SERVICES, find_calls

ASK_AIRFLOW = """
import contextlib, io, json, sys
from airflow.cli.cli_parser import get_parser
from airflow.configuration import conf
from airflow.providers_manager import ProvidersManager

ProvidersManager().initialize_providers_configuration()
refused = {}
for call in json.load(sys.stdin):
    words = io.StringIO()
    try:
        with contextlib.redirect_stderr(words):
            get_parser().parse_args(call)
    except SystemExit:
        refused[" ".join(call)] = words.getvalue()
sections = conf.configuration_description
options = [f"AIRFLOW__{section}__{name}".upper() for section in sections for name in sections[section]["options"]]
json.dump({"refused": refused, "options": options}, open(sys.argv[1], "w"))
"""


@dataclass(frozen=True)
class AirflowAnswer:
    """The calls that Airflow refuses, with its words, and the variables that it reads."""

    refused: dict[str, str]
    options: frozenset[str]


@pytest.fixture(scope="module")
def answer(tmp_path_factory: pytest.TempPathFactory) -> AirflowAnswer:
    """In a process of its own, since Airflow makes itself a home as it is imported."""
    folder = tmp_path_factory.mktemp("airflow")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    managers = {name: value for name, value in SERVICES["init"]["environment"].items() if name.endswith("_MANAGER")}
    subprocess.run(
        [sys.executable, "-c", ASK_AIRFLOW, str(folder / "answer.json")],
        input=json.dumps(find_calls("airflow")),
        env={**inherited, **managers, "AIRFLOW_HOME": str(folder)},
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads((folder / "answer.json").read_text())
    return AirflowAnswer(found["refused"], frozenset(found["options"]))


def list_variables() -> set[str]:
    return {name for service in SERVICES.values() for name in service.get("environment", {}) if "__" in name}


def test_commands_exist(answer: AirflowAnswer) -> None:
    assert len(find_calls("airflow")) >= 11
    assert not answer.refused


def test_settings_exist(answer: AirflowAnswer) -> None:
    assert len(list_variables()) >= 16
    assert list_variables() <= answer.options


def test_the_executor_and_the_celery_application_can_be_loaded(tmp_path: Path) -> None:
    applications = {call[1] for call in find_calls("celery")}
    assert applications == {"airflow.providers.celery.executors.celery_executor.app"}
    module, _, name = applications.pop().rpartition(".")
    subprocess.run(
        [sys.executable, "-c", f"from {module} import CeleryExecutor, {name}; {name}.tasks"],
        env={**os.environ, "AIRFLOW_HOME": str(tmp_path)},
        check=True,
    )
