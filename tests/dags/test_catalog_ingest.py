from typing import Any

import pytest

from jobs.settings import AirflowSettings


@pytest.fixture
def dag(parsed: dict[str, Any]) -> dict[str, Any]:
    described: dict[str, Any] = parsed["dags"]["catalog_ingest"]
    return described


def test_the_tasks_are_in_order(dag: dict[str, Any]) -> None:
    assert {task_id: task["downstream"] for task_id, task in dag["tasks"].items()} == {
        "discover": ["publish", "report", "tag_shard"],
        "tag_shard": ["publish"],
        "publish": ["draw_map", "report"],
        "draw_map": [],
        "report": ["announce_drift"],
        "announce_drift": [],
    }
    assert [task_id for task_id, task in dag["tasks"].items() if task["is_mapped"]] == ["tag_shard"]


def test_a_failed_shard_does_not_stop_publish(dag: dict[str, Any]) -> None:
    rules = {task_id: task["trigger_rule"].lower() for task_id, task in dag["tasks"].items()}
    assert rules["publish"].endswith("all_done")
    assert rules["report"].endswith("all_success")


def test_it_runs_every_night_with_optional_parameters(dag: dict[str, Any]) -> None:
    assert dag["schedule"] == AirflowSettings().ingest_schedule == "0 2 * * *"
    assert {name: param["value"] for name, param in dag["params"].items()} == {
        "source": None,
        "limit": None,
        "force": False,
        "plan_only": False,
    }


def test_only_the_last_task_announces_drift(dag: dict[str, Any]) -> None:
    outlets = {task_id: task["outlets"] for task_id, task in dag["tasks"].items() if task["outlets"]}
    assert outlets == {"announce_drift": ["catalog_drift"]}


def test_a_failed_map_does_not_fail_the_run(dag: dict[str, Any]) -> None:
    """Airflow decides by the last tasks that are not such teardowns."""
    harmless = [task_id for task_id, task in dag["tasks"].items() if task["is_harmless"]]
    assert harmless == ["draw_map"]
