import configparser
from pathlib import Path

import pytest

from jobs.local.airflow_services import AirflowOptions, make_airflow_environment, write_airflow_configuration
from jobs.local.stack_files import load_credentials


def write_configuration(folder: Path, database_url: str = "postgresql+psycopg2://u:p@127.0.0.1:1/airflow") -> Path:
    write_airflow_configuration(folder, 8080, database_url, load_credentials(folder), AirflowOptions())
    return folder / "airflow" / "airflow.cfg"


def test_only_the_owner_can_read_files_with_secrets(tmp_path: Path) -> None:
    configuration = write_configuration(tmp_path)

    assert configuration.stat().st_mode & 0o777 == 0o600
    assert (configuration.parent / "passwords.json").stat().st_mode & 0o777 == 0o600


def test_percent_signs_survive_interpolation(tmp_path: Path) -> None:
    url = "postgresql+psycopg2://u:p%40ss@127.0.0.1:1/airflow"
    parser = configparser.ConfigParser()
    parser.read(write_configuration(tmp_path, url))

    assert parser["database"]["sql_alchemy_conn"] == url


def test_configuration_depends_only_on_secrets_and_options(tmp_path: Path) -> None:
    assert write_configuration(tmp_path).read_text() == write_configuration(tmp_path).read_text()


def test_settings_of_another_airflow_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__API__HOST", "0.0.0.0")
    monkeypatch.setenv("AIRFLOW_HOME", "/somewhere/else")
    environment = make_airflow_environment(tmp_path, {}, 1)

    assert "AIRFLOW__API__HOST" not in environment
    assert environment["AIRFLOW_HOME"] == str(tmp_path.resolve() / "airflow")


def test_credentials_of_caller_and_stack_are_not_mixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "mine")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "mine")
    stack = make_airflow_environment(tmp_path, {"AWS_ACCESS_KEY_ID": "of the stack"}, 1)
    own = make_airflow_environment(tmp_path, {}, 1)

    assert stack["AWS_ACCESS_KEY_ID"] == "of the stack"
    assert "AWS_SESSION_TOKEN" not in stack
    assert (own["AWS_ACCESS_KEY_ID"], own["AWS_SESSION_TOKEN"]) == ("mine", "mine")


def test_variables_of_the_env_file_reach_airflow_and_its_tasks(tmp_path: Path, env_file: Path) -> None:
    env_file.write_text("CATALOG_BATCH_SIZE=3\nHF_TOKEN=mine\nAIRFLOW_FERNET_KEY=of Compose\n")
    environment = make_airflow_environment(tmp_path, {}, 1)
    assert (environment["CATALOG_BATCH_SIZE"], environment["HF_TOKEN"]) == ("3", "mine")
    assert "AIRFLOW_FERNET_KEY" not in environment
