"""Whether the Airflow that is installed knows the commands and settings that docker-compose.yaml uses."""

import importlib.metadata
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.deployment.compose_file import SERVICES, find_calls

PROVIDERS = ("apache-airflow-providers-celery", "apache-airflow-providers-fab")
PROVIDER_COMMANDS = ("celery", "users")
PROVIDER_SECTIONS = ("AIRFLOW__CELERY__",)

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
        env={**inherited, **(managers if has_providers() else {}), "AIRFLOW_HOME": str(folder)},
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads((folder / "answer.json").read_text())
    return AirflowAnswer(found["refused"], frozenset(found["options"]))


def has_providers() -> bool:
    try:
        return all(importlib.metadata.version(name) for name in PROVIDERS)
    except importlib.metadata.PackageNotFoundError:
        return False


needs_providers = pytest.mark.skipif(not has_providers(), reason="requirements-compose.txt is not installed")


def list_variables() -> set[str]:
    return {name for service in SERVICES.values() for name in service.get("environment", {}) if "__" in name}


def test_core_commands_exist(answer: AirflowAnswer) -> None:
    calls = [call for call in find_calls("airflow") if call[0] not in PROVIDER_COMMANDS]
    assert len(calls) >= 9
    assert not {call: words for call, words in answer.refused.items() if not call.startswith(PROVIDER_COMMANDS)}


def test_core_settings_exist(answer: AirflowAnswer) -> None:
    variables = {name for name in list_variables() if not name.startswith(PROVIDER_SECTIONS)}
    assert len(variables) >= 15
    assert variables <= answer.options


@needs_providers
def test_commands_of_providers_exist(answer: AirflowAnswer) -> None:
    assert {call[0] for call in find_calls("airflow")} >= set(PROVIDER_COMMANDS)
    assert not answer.refused


@needs_providers
def test_settings_of_providers_exist(answer: AirflowAnswer) -> None:
    assert list_variables() <= answer.options


@needs_providers
def test_the_executor_and_the_celery_application_can_be_loaded(tmp_path: Path) -> None:
    applications = {call[1] for call in find_calls("celery")}
    assert applications == {"airflow.providers.celery.executors.celery_executor.app"}
    module, _, name = applications.pop().rpartition(".")
    subprocess.run(
        [sys.executable, "-c", f"from {module} import CeleryExecutor, {name}; {name}.tasks"],
        env={**os.environ, "AIRFLOW_HOME": str(tmp_path)},
        check=True,
    )
