"""Describe the events that people are notified of: for each, what happened, why, what to do, and a link.

A DAG names the event where it happens: ``on_success_callback=notify(describe_promotion)``. Each event sends one
message. A failed task has none of its own, because its run names it, with its error. The exceptions are tasks with an
``on_failure_callback``, such as a gate: they are reported at once, and the run reports only the others that failed.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from airflow.sdk import Context

from catalog_airflow.defaults import ERROR_KEY
from catalog_airflow.notifications import Message
from catalog_airflow.page_links import locate_airflow, locate_pages

ADVICE = {
    "discover": "Too many images vanished",
    "tag_shard": "A shard fails",
    "report": "Too many images failed",
    "approve": "A promotion is refused",
    "promote": "A promotion is refused",
    "complete_retag": "A retag does not finish",
    "deliver": "Webhooks and dead letters",
    "care": "Recall is below its bound",
}
"""The section of docs/runbook.md on the failure of a task, if there is one."""

MAX_NAMED = 3
"""Maximum number of failed tasks of a mapped task that a message names."""


def describe_failed_run(context: Context) -> Message | None:
    """Name the failed tasks of a run with their errors. Runs in the DAG processor, when the run has ended."""
    dag, run_id = context["dag"], context["run_id"]
    failures = list_failures(dag, run_id)
    if not failures:
        return None
    advice = next((ADVICE[name] for name in map(_strip_group, failures) if name in ADVICE), None)
    section = f'"{advice}" in docs/runbook.md says more.' if advice else "docs/runbook.md lists the messages."
    return Message(
        level="error",
        what=f"{dag.dag_id} failed: {', '.join(failures)}",
        why="\n".join(line for lines in failures.values() for line in lines),
        what_to_do="Fix what the errors name. Then clear the failed tasks, including downstream: committed results are "
        f"kept. {section}",
        link=_locate_run(dag.dag_id, run_id),
    )


def list_failures(dag: Any, run_id: str) -> dict[str, list[str]]:
    """Return a line for each failed task of a run, by task id. Leave out tasks that have a message of their own."""
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    states = RuntimeTaskInstance.get_task_states(dag.dag_id, run_ids=[run_id]).get(run_id, {})
    failed = [name for name, state in states.items() if state == "failed"]
    failures = {}
    for task in dag.tasks:
        indexes = sorted(_find_indexes(task, failed))
        if indexes and not task.on_failure_callback:
            lines = [
                f"{task.task_id}{f' {index}' if index >= 0 else ''}: {read_error(dag.dag_id, run_id, task, index)}"
                for index in indexes[:MAX_NAMED]
            ]
            if len(indexes) > MAX_NAMED:
                lines.append(f"{task.task_id}: {len(indexes) - MAX_NAMED} more failed")
            failures[task.task_id] = lines
    return failures


def _find_indexes(task: Any, names: list[str]) -> Iterator[int]:
    """Return the map indexes under which a task is in a list of names, and -1 for a task that is not mapped."""
    for name in names:
        if name == task.task_id:
            yield -1
        elif task.is_mapped and (match := re.fullmatch(rf"{re.escape(task.task_id)}_(\d+)", name)):
            yield int(match[1])


def read_error(dag_id: str, run_id: str, task: Any, map_index: int) -> str:
    """Return the one-line error of a failed job."""
    from airflow.sdk.execution_time.xcom import XCom

    error = XCom.get_one(key=ERROR_KEY, dag_id=dag_id, task_id=task.task_id, run_id=run_id, map_index=map_index)
    return str(error or "it was killed or ran out of time. Its log shows more")


def describe_failed_gate(context: Context) -> Message:
    """Give the figures and bounds of the gates that failed, or the error that stopped them."""
    task, ti = context["task"], context["ti"]
    run = f"{ti.dag_id}/{ti.run_id}"
    return Message(
        level="error",
        what=f"Gate failed: the new {task.argument} is not promoted",
        why=read_error(ti.dag_id, ti.run_id, task, -1),
        what_to_do='The champion stays. "A gate failed" in docs/runbook.md gives the likely cause of each failure.',
        # Not the link of the task, whose options are templates if it was killed.
        link=f"{locate_pages()}/evaluations/{task.argument}?run={quote(run, safe='')}",
    )


def describe_waiting_approval(context: Context) -> Message:
    """Ask for the approval of a promotion, with the table of its gates."""
    task, ti = context["task"], context["ti"]
    return Message(
        level="warning",
        what=f"Approval needed: {task.subject}",
        why=task.body,
        what_to_do=f"Approve or reject it within {task.response_timeout.days} days. No response is a rejection.",
        link=f"{_locate_run(ti.dag_id, ti.run_id)}/tasks/{ti.task_id}/required_actions",
    )


def describe_promotion(context: Context) -> Message | None:
    """Report a new champion, which a rollback makes live at once."""
    report = _read_report(context)
    if not report["is_new"]:
        return None
    kind, version, replaced = report["kind"], report["model_version_id"], report["replaced_version_id"]
    is_rollback = report["is_live"] and replaced is not None
    before = f"It replaces {kind} {replaced}. " if replaced else ""
    after = "It is live." if report["is_live"] else "catalog_retag makes it live, when every image has its results."
    return Message(
        level="info",
        what=f"{'Rolled back to' if is_rollback else 'Promoted'} {kind} {version}",
        why=f"{before}{after} It has not processed {report['unprocessed_images']} images yet.",
        what_to_do=f"Nothing. To return to an earlier version, use `catalog rollback {kind}`.",
        link=f"{locate_pages()}/models",
    )


def describe_retag(context: Context) -> Message | None:
    """Report the versions that a retag made live."""
    report = _read_report(context)
    if report["state"] != "switched":
        return None
    versions = " and ".join(f"{switch['kind']} {switch['model_version_id']}" for switch in report["switched"])
    return Message(
        level="info",
        what=f"Live: {versions}",
        why=f"The retag has processed {report['entries']} images, of which {report['failed']} failed.",
        what_to_do="Nothing.",
        link=f"{locate_pages()}/run?run={quote(report['run_id'], safe='')}",
    )


def describe_stuck_retag(context: Context) -> Message | None:
    """Report champions that are not live although no retag works on them, once per nightly run."""
    stuck = _read_report(context)["stuck_retags"]
    return stuck and Message(
        level="warning",
        what="A retag is stuck",
        why="\n".join(stuck),
        what_to_do='Results come from the earlier version. See "A retag does not finish" in docs/runbook.md.',
        link=f"{locate_airflow()}/dags/catalog_retag",
    )


def describe_drift(context: Context) -> Message:
    """Report drift that starts a retraining."""
    report = context["ti"].xcom_pull(task_ids="report")
    return Message(
        level="warning",
        what="The images have drifted",
        why=report["drift"]["sentence"],
        what_to_do='model_retrain has started. "Images have drifted" in docs/runbook.md says what else helps.',
        link=f"{locate_pages()}/run?run={quote(report['run_id'], safe='')}",
    )


def describe_failed_recall_check(context: Context) -> Message:
    """Report search recall below its bound, or the error that stopped its check."""
    task, ti = context["task"], context["ti"]
    return Message(
        level="error",
        what="The check of search recall failed",
        why=read_error(ti.dag_id, ti.run_id, task, -1),
        what_to_do='Searches may miss results. "Recall is below its bound" in docs/runbook.md says what to do.',
        link=f"{locate_pages()}/overview",
    )


def _read_report(context: Context) -> Mapping[str, Any]:
    ti = context["ti"]
    report: Mapping[str, Any] = ti.xcom_pull(task_ids=ti.task_id)
    return report


def _locate_run(dag_id: str, run_id: str) -> str:
    return f"{locate_airflow()}/dags/{dag_id}/runs/{quote(run_id, safe='')}"


def _strip_group(task_id: str) -> str:
    return task_id.rpartition(".")[2]
