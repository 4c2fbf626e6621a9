from typing import Any

import pytest


@pytest.fixture
def dag(parsed: dict[str, Any]) -> dict[str, Any]:
    described: dict[str, Any] = parsed["dags"]["catalog_maintenance"]
    return described


def test_indexes_are_repaired_even_if_the_check_failed(dag: dict[str, Any]) -> None:
    assert {task_id: task["downstream"] for task_id, task in dag["tasks"].items()} == {
        "check_recall": ["care"],
        "care": [],
    }
    assert dag["tasks"]["care"]["trigger_rule"].lower().endswith("all_done")


def test_it_runs_every_night_with_time_for_a_rebuild(dag: dict[str, Any]) -> None:
    assert dag["schedule"] == "0 5 * * *"
    assert dag["tasks"]["care"]["timeout_seconds"] >= 6 * 3600
