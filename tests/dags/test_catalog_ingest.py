from typing import Any

import pytest


@pytest.fixture
def dag(parsed: dict[str, Any]) -> dict[str, Any]:
    described: dict[str, Any] = parsed["dags"]["catalog_ingest"]
    return described


def test_the_flow_goes_one_way(dag: dict[str, Any]) -> None:
    assert {task_id: task["downstream"] for task_id, task in dag["tasks"].items()} == {
        "discover": ["publish", "report", "tag_shard"],
        "tag_shard": ["publish"],
        "publish": ["report"],
        "report": ["announce_drift"],
        "announce_drift": [],
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


def test_drift_is_announced_by_the_last_task_alone(dag: dict[str, Any]) -> None:
    outlets = {task_id: task["outlets"] for task_id, task in dag["tasks"].items() if task["outlets"]}
    assert outlets == {"announce_drift": ["catalog_drift"]}
