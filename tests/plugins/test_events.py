"""The texts of the notifications. tests/end_to_end/test_notifications.py sends some of them."""

import re
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import pytest

from jobs.settings import PROJECT_ROOT

if TYPE_CHECKING:
    from catalog_airflow.notifications import Message

RUN = "manual__2026-01-01T00:00:00+00:00"
QUOTED = "manual__2026-01-01T00%3A00%3A00%2B00%3A00"
PROMOTED = {
    "kind": "classifier",
    "model_version_id": 7,
    "replaced_version_id": 4,
    "is_new": True,
    "is_live": False,
    "unprocessed_images": 120,
}


class TaskInstance:
    """The part of a task instance that the events use, with the XComs of its run by task id."""

    def __init__(self, task_id: str, reports: dict[str, Any]) -> None:
        self.dag_id, self.run_id, self.task_id = "a_dag", RUN, task_id
        self._reports = reports

    def xcom_pull(self, task_ids: str) -> Any:
        return self._reports[task_ids]


def describe(name: str, report: Any = None, task: Any = None) -> "Message | None":
    """Return the message of an event at a task, if that task or the task ``report`` returned this report."""
    from catalog_airflow import events

    ti = TaskInstance("task", {"task": report, "report": report})
    message: Message | None = getattr(events, name)({"ti": ti, "task": task})
    return message


def fail(states: dict[str, str], errors: dict[tuple[str, int], str]) -> "Message | None":
    """Return the message of a failed run with these states and errors of its tasks."""
    from airflow.sdk import DAG
    from catalog_airflow.events import describe_failed_gate, describe_failed_run
    from catalog_airflow.notifications import notify
    from catalog_airflow.operators import GateOperator, JobOperator

    with DAG("a_dag", schedule=None) as dag:
        shards = JobOperator.partial(task_id="tag_shard", command="tag-shard").expand(argument=list(range(12)))
        gate = GateOperator(task_id="gate", command="gate", on_failure_callback=notify(describe_failed_gate))
        shards >> JobOperator(task_id="report", command="report") >> gate

    def read_error(*, task_id: str, map_index: int, **_: Any) -> str | None:
        return errors.get((task_id, map_index))

    with (
        patch(
            "airflow.sdk.execution_time.task_runner.RuntimeTaskInstance.get_task_states",
            lambda dag_id, run_ids: {RUN: states},
        ),
        patch("airflow.sdk.execution_time.xcom.XCom.get_one", read_error),
    ):
        return describe_failed_run({"dag": dag, "run_id": RUN})


def test_a_failed_run_names_its_failed_tasks_with_their_errors() -> None:
    states = {"tag_shard_2": "failed", "tag_shard_10": "failed", "tag_shard_3": "success", "report": "failed"}
    message = fail(states, {("tag_shard", 2): "no bucket", ("report", -1): "2 of 3 images failed"})
    assert message
    assert (message.level, message.what) == ("error", "a_dag failed: tag_shard, report")
    assert message.why.splitlines() == [
        "tag_shard 2: no bucket",
        "tag_shard 10: it was killed or ran out of time. Its log shows more",
        "report: 2 of 3 images failed",
    ]
    assert '"A shard fails" in docs/runbook.md' in message.what_to_do
    assert message.link == f"/dags/a_dag/runs/{QUOTED}"


def test_only_three_shards_are_named() -> None:
    message = fail({f"tag_shard_{index}": "failed" for index in range(12)}, {})
    assert message
    assert message.why.splitlines()[3:] == ["tag_shard: 9 more failed"]


def test_a_gate_that_failed_alone_is_not_reported_twice() -> None:
    assert fail({"gate": "failed", "report": "success"}, {}) is None
    message = fail({"gate": "failed", "report": "failed", "tag_shard": "upstream_failed"}, {})
    assert message
    assert message.what == "a_dag failed: report"


def test_every_section_of_the_runbook_that_a_message_names_exists() -> None:
    from catalog_airflow.events import ADVICE

    source = (PROJECT_ROOT / "plugins" / "catalog_airflow" / "events.py").read_text(encoding="utf-8")
    named = {*ADVICE.values(), *re.findall(r'"([A-Z][a-z ]+)" in docs/runbook', source)}
    headings = re.findall("^## (.+)$", (PROJECT_ROOT / "docs" / "runbook.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(named) >= 7
    assert named <= set(headings)


@pytest.mark.parametrize(
    ("changes", "what", "why"),
    [
        (
            {},
            "Promoted classifier 7",
            "It replaces classifier 4. catalog_retag makes it live, when every image has its results. "
            "It has not processed 120 images yet.",
        ),
        (
            {"is_live": True},
            "Rolled back to classifier 7",
            "It replaces classifier 4. It is live. It has not processed 120 images yet.",
        ),
        (
            {"is_live": True, "replaced_version_id": None},
            "Promoted classifier 7",
            "It is live. It has not processed 120 images yet.",
        ),
    ],
)
def test_a_promotion_says_when_it_is_live(changes: dict[str, Any], what: str, why: str) -> None:
    message = describe("describe_promotion", PROMOTED | changes)
    assert message
    assert (message.level, message.what, message.why, message.link) == ("info", what, why, "/catalog/models")
    assert "`catalog rollback classifier`" in message.what_to_do


def test_a_repeated_promotion_is_not_reported() -> None:
    assert describe("describe_promotion", PROMOTED | {"is_new": False}) is None


def test_a_retag_names_what_it_made_live() -> None:
    switched = [{"kind": "classifier", "model_version_id": 7}, {"kind": "encoder", "model_version_id": 8}]
    report = {"run_id": "catalog_retag/1", "state": "switched", "switched": switched, "entries": 9, "failed": 1}
    message = describe("describe_retag", report)
    assert message
    assert (message.what, message.link) == ("Live: classifier 7 and encoder 8", "/catalog/run?run=catalog_retag%2F1")
    assert describe("describe_retag", report | {"state": "nothing to do"}) is None


def test_a_stuck_retag_is_reported_with_its_reason() -> None:
    message = describe("describe_stuck_retag", {"stuck_retags": ["classifier 7 is late"]})
    assert message
    assert (message.level, message.why, message.link) == ("warning", "classifier 7 is late", "/dags/catalog_retag")
    assert not describe("describe_stuck_retag", {"stuck_retags": []})


def test_drift_is_reported_with_its_figures() -> None:
    message = describe("describe_drift", {"run_id": "night/1", "drift": {"sentence": "0.4 > 0.25"}})
    assert message
    assert (message.level, message.why, message.link) == ("warning", "0.4 > 0.25", "/catalog/run?run=night%2F1")


def test_a_failed_recall_check_gives_its_reason() -> None:
    from catalog_airflow.operators import JobOperator

    task = JobOperator(task_id="task", command="check-recall")
    with patch("airflow.sdk.execution_time.xcom.XCom.get_one", return_value="recall is 0.91, below 0.95"):
        message = describe("describe_failed_recall_check", task=task)
    assert message
    assert (message.level, message.why) == ("error", "recall is 0.91, below 0.95")
    assert message.what == "The check of search recall failed"


def test_a_failed_gate_and_a_waiting_approval_link_to_their_pages() -> None:
    from catalog_airflow.operators import GateOperator, PromotionApproval

    gate = GateOperator(task_id="task", command="gate", argument="encoder", options={"run": "model_retrain/1"})
    with patch("airflow.sdk.execution_time.xcom.XCom.get_one", return_value="1 of 9 gates failed"):
        rejected = describe("describe_failed_gate", task=gate)
    assert rejected
    assert (rejected.what, rejected.why) == ("Gate failed: the new encoder is not promoted", "1 of 9 gates failed")
    assert rejected.link == f"/catalog/evaluations/encoder?run=a_dag%2F{QUOTED}"

    approval = PromotionApproval(task_id="task", is_required=True, subject="Promote the new encoder?", body="| gate |")
    waiting = describe("describe_waiting_approval", task=approval)
    assert waiting
    assert (waiting.level, waiting.what) == ("warning", "Approval needed: Promote the new encoder?")
    assert waiting.why == "| gate |"
    assert "within 3 days" in waiting.what_to_do
    assert waiting.link == f"/dags/a_dag/runs/{QUOTED}/tasks/task/required_actions"
