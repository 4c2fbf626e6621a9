import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jobs.cli import app
from jobs.local.airflow_services import GPU_POOL
from jobs.settings import PROJECT_ROOT

PARSE_LIMIT_SECONDS = 1.0
COMMANDS_ON_THE_GPU = {"tag-shard"}
TYPES = {"string", "integer", "number", "boolean", "array", "object"}


def parse_dags(folder: Path, airflow_home: Path) -> dict[str, Any]:
    """What Airflow makes of a folder of DAGs, in a fresh process that has the plugins on its path."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    answer = subprocess.run(
        [sys.executable, Path(__file__).with_name("describe_dags.py"), folder],
        env=inherited | {"AIRFLOW_HOME": str(airflow_home), "PYTHONPATH": str(PROJECT_ROOT / "plugins")},
        cwd=airflow_home,
        capture_output=True,
        text=True,
        timeout=200,
        check=True,
    )
    parsed: dict[str, Any] = json.loads(answer.stdout.splitlines()[-1])
    return parsed


@pytest.fixture(scope="module")
def parsed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return parse_dags(PROJECT_ROOT / "dags", tmp_path_factory.mktemp("airflow"))


@pytest.fixture(scope="module")
def dag(parsed: dict[str, Any]) -> dict[str, Any]:
    described: dict[str, Any] = parsed["dags"]["catalog_ingest"]
    return described


def test_every_file_is_parsed_without_an_error(parsed: dict[str, Any]) -> None:
    assert parsed["errors"] == {}
    assert parsed["cpu_seconds"].keys() == {path.name for path in (PROJECT_ROOT / "dags").glob("*.py")}
    assert parsed["cpu_seconds"].keys() == {f"{dag_id}.py" for dag_id in parsed["dags"]}


def test_a_file_is_parsed_in_under_a_second(parsed: dict[str, Any]) -> None:
    """Airflow parses each file every few seconds; processor time, so that a busy machine does not count."""
    assert {name: seconds for name, seconds in parsed["cpu_seconds"].items() if seconds > PARSE_LIMIT_SECONDS} == {}


def test_parsing_loads_neither_torch_nor_the_jobs(parsed: dict[str, Any]) -> None:
    assert parsed["heavy"] == []


def test_a_wrong_file_would_be_noticed(tmp_path: Path) -> None:
    """That the tests above can fail."""
    dags = tmp_path / "dags"
    dags.mkdir()
    (dags / "broken.py").write_text("from airflow.sdk import DAG\nimport no_such_module\n")
    (dags / "slow.py").write_text(
        "import sys\nimport time\nimport types\nfrom airflow.sdk import DAG\n"
        "sys.modules['torch'] = types.ModuleType('torch')\n"
        "end = time.process_time() + 1.1\nwhile time.process_time() < end:\n    pass\n"
    )
    parsed = parse_dags(dags, tmp_path)
    assert [Path(name).name for name in parsed["errors"]] == ["broken.py"]
    assert parsed["cpu_seconds"]["slow.py"] > PARSE_LIMIT_SECONDS
    assert parsed["heavy"] == ["torch"]


def test_every_task_has_an_owner_retries_and_a_timeout(parsed: dict[str, Any]) -> None:
    for dag_id, described in parsed["dags"].items():
        for task_id, task in described["tasks"].items():
            assert task["owner"] not in {"", "airflow"}, (dag_id, task_id)
            assert task["retries"] >= 1, (dag_id, task_id)
            assert task["timeout_seconds"], (dag_id, task_id)


def test_every_task_that_needs_a_gpu_has_its_pool_and_no_other_has(parsed: dict[str, Any]) -> None:
    for described in parsed["dags"].values():
        for task in described["tasks"].values():
            assert (task["pool"] == GPU_POOL) == (task["command"] in COMMANDS_ON_THE_GPU), task


def test_every_command_is_one_of_the_jobs(parsed: dict[str, Any]) -> None:
    commands = {
        command.name or (command.callback.__name__ if command.callback else "").replace("_", "-")
        for command in app.registered_commands
    }
    asked = {task["command"] for described in parsed["dags"].values() for task in described["tasks"].values()}
    assert asked <= commands
    assert commands >= COMMANDS_ON_THE_GPU


def test_runs_do_not_overlap_and_are_not_made_up_for(parsed: dict[str, Any]) -> None:
    for described in parsed["dags"].values():
        assert described["max_active_runs"] == 1
        assert described["catchup"] is False


def test_every_parameter_has_a_type_and_a_description(parsed: dict[str, Any]) -> None:
    for described in parsed["dags"].values():
        for name, param in described["params"].items():
            types = param["schema"]["type"]
            assert set([types] if isinstance(types, str) else types) - {"null"} <= TYPES, name
            assert param["schema"]["title"], name
            assert param["description"], name


def test_the_docs_explain_every_task_and_every_parameter(parsed: dict[str, Any]) -> None:
    for described in parsed["dags"].values():
        assert all(f"**{task_id}**" in described["doc_md"] for task_id in described["tasks"])
        assert all(f"`{name}`" in described["doc_md"] for name in described["params"])


def test_the_flow_goes_one_way(dag: dict[str, Any]) -> None:
    assert {task_id: task["downstream"] for task_id, task in dag["tasks"].items()} == {
        "discover": ["publish", "report", "tag_shard"],
        "tag_shard": ["publish"],
        "publish": ["report"],
        "report": [],
    }
    assert [task_id for task_id, task in dag["tasks"].items() if task["is_mapped"]] == ["tag_shard"]


def test_a_shard_that_failed_keeps_nobody_from_the_others(dag: dict[str, Any]) -> None:
    rules = {task_id: task["trigger_rule"].lower() for task_id, task in dag["tasks"].items()}
    assert rules["publish"].endswith("all_done")
    assert rules["report"].endswith("all_success")


def test_it_runs_every_night_and_can_be_asked_for_less_or_more(dag: dict[str, Any]) -> None:
    assert dag["schedule"] == "0 2 * * *"
    assert {name: param["value"] for name, param in dag["params"].items()} == {
        "source": None,
        "limit": None,
        "force": False,
        "plan_only": False,
    }
