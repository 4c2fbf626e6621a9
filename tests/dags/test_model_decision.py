from typing import Any

import pytest


@pytest.fixture
def dag(parsed: dict[str, Any]) -> dict[str, Any]:
    described: dict[str, Any] = parsed["dags"]["model_decision"]
    return described


def test_one_of_two_tasks_does_what_was_decided(dag: dict[str, Any]) -> None:
    assert {task_id: task["downstream"] for task_id, task in dag["tasks"].items()} == {"promote": [], "rollback": []}


def test_only_people_start_it(dag: dict[str, Any]) -> None:
    assert dag["schedule"] == "None"


def test_only_a_promotion_brings_the_catalog_over(dag: dict[str, Any]) -> None:
    assert {name: task["outlets"] for name, task in dag["tasks"].items()} == {
        "promote": ["catalog_promotion"],
        "rollback": [],
    }
