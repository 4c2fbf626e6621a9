from typing import Any

import pytest

from jobs.settings import AirflowSettings

STAGES = ["train", "optimize", "evaluate", "gate", "approve", "promote"]


@pytest.fixture
def dag(parsed: dict[str, Any]) -> dict[str, Any]:
    described: dict[str, Any] = parsed["dags"]["model_retrain"]
    return described


@pytest.mark.parametrize("kind", ["classifier", "encoder"])
def test_a_promotion_has_every_stage_before_it(dag: dict[str, Any], kind: str) -> None:
    tasks = [f"{kind}.{stage}" for stage in STAGES]
    assert [dag["tasks"][task]["downstream"] for task in tasks] == [[task] for task in tasks[1:]] + [[]]


def test_no_stage_runs_after_a_failed_or_skipped_one(dag: dict[str, Any]) -> None:
    assert {task["trigger_rule"].lower().rpartition(".")[2] for task in dag["tasks"].values()} == {"all_success"}


def test_both_kinds_start_from_the_same_snapshot(dag: dict[str, Any]) -> None:
    assert dag["tasks"]["snapshot"]["downstream"] == ["classifier.train", "encoder.train"]
    assert len(dag["tasks"]) == 1 + 2 * len(STAGES)


def test_a_promotion_is_announced_by_its_own_task_alone(dag: dict[str, Any]) -> None:
    outlets = {task_id: task["outlets"] for task_id, task in dag["tasks"].items() if task["outlets"]}
    assert outlets == {"classifier.promote": ["catalog_promotion"], "encoder.promote": ["catalog_promotion"]}


def test_it_runs_every_week_and_when_images_have_drifted(dag: dict[str, Any]) -> None:
    assert f"CronTriggerTimetable(expression='{AirflowSettings().retrain_schedule}'" in dag["schedule"]
    assert "x-catalog://drift" in dag["schedule"]


def test_without_parameters_no_human_is_asked_and_both_kinds_are_trained(dag: dict[str, Any]) -> None:
    values = {name: param["value"] for name, param in dag["params"].items()}
    assert values["require_approval"] is False
    assert values["kinds"] == "both"
