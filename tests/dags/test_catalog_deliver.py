from typing import Any

import pytest


@pytest.fixture
def dag(parsed: dict[str, Any]) -> dict[str, Any]:
    described: dict[str, Any] = parsed["dags"]["catalog_deliver"]
    return described


def test_one_task_follows_the_changes_of_each_hour(dag: dict[str, Any]) -> None:
    assert dag["schedule"] == "0 * * * *"
    assert {task_id: task["command"] for task_id, task in dag["tasks"].items()} == {"deliver": "deliver"}
    # Longer than the 59 minutes for which the command follows the changes.
    assert dag["tasks"]["deliver"]["timeout_seconds"] > 59 * 60 + 60
