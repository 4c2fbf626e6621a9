from pathlib import Path
from typing import Any

import typer

from jobs.cli import app
from jobs.local.airflow_services import GPU_POOL
from jobs.settings import PROJECT_ROOT
from tests.dags.conftest import parse_dags

PARSE_LIMIT_SECONDS = 1.0
COMMANDS_ON_THE_GPU = {"tag-shard", "train", "optimize", "evaluate", "complete-retag"}
TYPES = {"string", "integer", "number", "boolean", "array", "object"}


def test_every_file_parses_without_an_error(parsed: dict[str, Any]) -> None:
    assert parsed["errors"] == {}
    assert parsed["cpu_seconds"].keys() == {path.name for path in (PROJECT_ROOT / "dags").glob("*.py")}
    assert parsed["cpu_seconds"].keys() == {f"{dag_id}.py" for dag_id in parsed["dags"]}


def test_every_file_parses_in_under_a_second(parsed: dict[str, Any]) -> None:
    """Airflow parses each file every few seconds. Measured in processor time, so a busy machine does not matter."""
    assert {name: seconds for name, seconds in parsed["cpu_seconds"].items() if seconds > PARSE_LIMIT_SECONDS} == {}


def test_parsing_imports_neither_torch_nor_jobs(parsed: dict[str, Any]) -> None:
    assert parsed["heavy"] == []


def test_a_broken_or_slow_file_or_schedule_is_detected(tmp_path: Path) -> None:
    """The tests above can fail."""
    dags = tmp_path / "dags"
    dags.mkdir()
    (dags / "broken.py").write_text("from airflow.sdk import DAG\nimport no_such_module\n")
    (dags / "slow.py").write_text(
        "import sys\nimport time\nimport types\nfrom airflow.sdk import DAG\n"
        "sys.modules['torch'] = types.ModuleType('torch')\n"
        "end = time.process_time() + 1.1\nwhile time.process_time() < end:\n    pass\n"
    )
    for name in ("catalog_ingest.py", "model_retrain.py"):
        (dags / name).symlink_to(PROJECT_ROOT / "dags" / name)
    schedules = {"CATALOG_INGEST_SCHEDULE": "0 25 * * *", "CATALOG_RETRAIN_SCHEDULE": "none"}
    parsed = parse_dags(dags, tmp_path, schedules)
    errors = {Path(name).name: error.splitlines()[-1] for name, error in parsed["errors"].items()}
    assert errors.keys() == {"broken.py", "catalog_ingest.py"}
    # Airflow's UI shows this line.
    assert errors["catalog_ingest.py"].startswith("ValueError: CATALOG_INGEST_SCHEDULE is '0 25 * * *', not a cron")
    assert "Timetable" not in parsed["dags"]["model_retrain"]["schedule"]
    assert "x-catalog://drift" in parsed["dags"]["model_retrain"]["schedule"]
    assert parsed["cpu_seconds"]["slow.py"] > PARSE_LIMIT_SECONDS
    assert parsed["heavy"] == ["torch"]


def test_every_task_has_an_owner_retries_and_a_timeout(parsed: dict[str, Any]) -> None:
    for dag_id, described in parsed["dags"].items():
        for task_id, task in described["tasks"].items():
            assert task["owner"] not in {"", "airflow"}, (dag_id, task_id)
            assert task["retries"] >= 1, (dag_id, task_id)
            assert task["timeout_seconds"], (dag_id, task_id)


def test_exactly_the_tasks_on_the_gpu_use_its_pool(parsed: dict[str, Any]) -> None:
    for described in parsed["dags"].values():
        for task in described["tasks"].values():
            assert (task["pool"] == GPU_POOL) == (task["command"] in COMMANDS_ON_THE_GPU), task


def test_every_command_is_one_of_the_jobs(parsed: dict[str, Any]) -> None:
    commands = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    asked = {task["command"] for described in parsed["dags"].values() for task in described["tasks"].values()}
    assert asked - {None} <= commands
    assert commands >= COMMANDS_ON_THE_GPU


def test_runs_do_not_overlap_or_backfill(parsed: dict[str, Any]) -> None:
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
        # The chains of both kinds are explained once.
        assert all(f"**{task_id.rpartition('.')[2]}**" in described["doc_md"] for task_id in described["tasks"])
        assert all(f"`{name}`" in described["doc_md"] for name in described["params"])
