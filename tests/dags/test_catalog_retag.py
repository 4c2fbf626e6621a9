from typing import Any

import pytest


@pytest.fixture
def dag(parsed: dict[str, Any]) -> dict[str, Any]:
    described: dict[str, Any] = parsed["dags"]["catalog_retag"]
    return described


def test_the_tasks_are_in_order(dag: dict[str, Any]) -> None:
    assert {task_id: task["downstream"] for task_id, task in dag["tasks"].items()} == {
        "plan_retag": ["tag_shard"],
        "tag_shard": ["complete_retag"],
        "complete_retag": ["draw_map"],
        "draw_map": [],
    }
    assert [task_id for task_id, task in dag["tasks"].items() if task["is_mapped"]] == ["tag_shard"]


def test_a_promotion_starts_it(dag: dict[str, Any]) -> None:
    assert "x-catalog://promotion" in dag["schedule"]
    assert "Timetable" not in dag["schedule"]


def test_a_failed_shard_prevents_the_switch(dag: dict[str, Any]) -> None:
    assert dag["tasks"]["complete_retag"]["trigger_rule"].lower().endswith("none_failed")


def test_a_failed_map_does_not_fail_the_run(dag: dict[str, Any]) -> None:
    assert [task_id for task_id, task in dag["tasks"].items() if task["is_harmless"]] == ["draw_map"]
