from typing import Any

import pytest


@pytest.fixture
def dag(parsed: dict[str, Any]) -> dict[str, Any]:
    described: dict[str, Any] = parsed["dags"]["model_decision"]
    return described


def test_one_task_carries_out_the_decision(dag: dict[str, Any]) -> None:
    assert {task_id: task["downstream"] for task_id, task in dag["tasks"].items()} == {"decide": []}


def test_it_has_no_schedule(dag: dict[str, Any]) -> None:
    assert dag["schedule"] == "None"


def test_a_new_champion_starts_a_retag(dag: dict[str, Any]) -> None:
    assert dag["tasks"]["decide"]["outlets"] == ["catalog_promotion"]
