"""Fail as the nightly run does, promote a model, and fail a gate, without jobs."""

import json
import sys

from airflow.sdk import DAG, TriggerRule
from catalog_airflow.events import describe_failed_gate, describe_failed_run, describe_promotion
from catalog_airflow.notifications import notify
from catalog_airflow.operators import GateOperator, JobOperator

PROMOTION = {
    "kind": "classifier",
    "model_version_id": 7,
    "replaced_version_id": 4,
    "is_new": True,
    "is_live": False,
    "unprocessed_images": 120,
}


class PrintingJob:
    """A job that prints the name of its command. It fails unless that is JSON."""

    command: str

    def build_command(self) -> list[str]:
        """Return a command for Python."""
        code = 0 if self.command.startswith(('{"', "[")) else 78
        return [sys.executable, "-Sc", f"print({self.command!r}); raise SystemExit({code})"]


class PrintingOperator(PrintingJob, JobOperator):
    """A `JobOperator` without a job."""


class PrintingGate(PrintingJob, GateOperator):
    """A `GateOperator` without a job."""


RUN = {"run": "{{ run_id }}"}

with DAG("fail_and_notify", schedule=None, max_active_tasks=2, on_failure_callback=notify(describe_failed_run)):
    promote = PrintingOperator(
        task_id="promote", command=json.dumps(PROMOTION), on_success_callback=notify(describe_promotion), options=RUN
    )
    tag_shard = PrintingOperator.partial(task_id="tag_shard", options=RUN).expand(
        command=["cannot reach the bucket", "{{ '{{ nothing }}' }}"]
    )
    report = PrintingOperator(
        task_id="report", command="2 of 3 images failed", trigger_rule=TriggerRule.ALL_DONE, options=RUN
    )
    PrintingGate(
        task_id="gate",
        command="accuracy 0.5 is below 0.9",
        argument="classifier",
        on_failure_callback=notify(describe_failed_gate),
        options=RUN,
    )
    [promote, tag_shard] >> report
