from typing import Any

import pytest


@pytest.fixture
def dag(parsed: dict[str, Any]) -> dict[str, Any]:
    described: dict[str, Any] = parsed["dags"]["catalog_deliver"]
    return described


def test_one_task_posts_the_changes_of_five_minutes(dag: dict[str, Any]) -> None:
    assert dag["schedule"] == "*/5 * * * *"
    assert {task_id: task["command"] for task_id, task in dag["tasks"].items()} == {"deliver": "deliver"}
