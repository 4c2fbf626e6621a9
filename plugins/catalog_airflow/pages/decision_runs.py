"""Decisions are runs of a DAG: models are loaded by workers, never by the API server, and Airflow keeps the log."""

from airflow.api.common.trigger_dag import trigger_dag
from airflow.exceptions import DagNotFound
from airflow.models import DagRun
from airflow.utils.types import DagRunTriggeredByType

from catalog_airflow.defaults import DECISION_DAG
from jobs.errors import RetryableError


def start_decision(decision_id: int, decided_by: str) -> str:
    """Start the DAG for a stored decision, in a person's name; returns the run's id.

    Raises:
        RetryableError: Airflow does not know the DAG yet.
    """
    try:
        run = trigger_dag(
            DECISION_DAG,
            triggered_by=DagRunTriggeredByType.UI,
            triggering_user_name=decided_by,
            conf={"decision": decision_id},
        )
    except DagNotFound:
        raise RetryableError(
            f"Airflow has not read the DAG {DECISION_DAG} yet: see that its dag processor runs"
        ) from None
    assert run is not None
    run_id: str = run.run_id
    return run_id


def read_decision_state(run_id: str) -> str | None:
    """``queued``, ``running``, ``success`` or ``failed``; None if there is no such run."""
    runs = DagRun.find(dag_id=DECISION_DAG, run_id=run_id)
    return str(runs[0].state) if runs else None
