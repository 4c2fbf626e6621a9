"""One real Airflow, with the project's own DAGs and two small ones, for all tests of this folder."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from sqlalchemy import create_engine, text

from jobs.database.engine import driver_url
from jobs.local.airflow_client import AirflowClient, DagRun
from jobs.local.airflow_services import AirflowOptions
from jobs.local.ports import WantedPorts
from jobs.local.stack import StackStatus, start_stack, stop_stack
from jobs.settings import PROJECT_ROOT
from tests.local.conftest import make_stack_folder
from tests.local.stack_access import read_environment

CONFIGURATION = {
    "CATALOG_TEST_SHARE": "0.2",
    "CATALOG_GATE_MIN_IMAGES_PER_SECOND": "1",
    "CATALOG_GATE_MAX_LATENCY_MILLISECONDS": "10000",
}
"""A fifth of the photos in test, so that chance decides less. How fast a candidate serves is no reason for a test to
fail on a busy machine. All other gates are the defaults.
"""

SMALL_DAGS = Path(__file__).with_name("small_dags")
PATIENCE_SECONDS = 900.0


@dataclass(frozen=True)
class LiveStack:
    """A running stack with a migrated catalog."""

    status: StackStatus
    airflow: AirflowClient

    @property
    def environment(self) -> dict[str, str]:
        """What a job needs to work on this stack."""
        return read_environment(self.status.folder) | {"CATALOG_MODEL_CACHE": str(self.status.folder / "models")}

    def run_job(self, *words: str, **variables: str) -> str:
        """Run ``python -m jobs`` under environment variables; returns its standard output."""
        finished = subprocess.run(
            [sys.executable, "-m", "jobs", *words],
            cwd=PROJECT_ROOT,
            env=os.environ | CONFIGURATION | self.environment | variables,
            check=False,
            capture_output=True,
            text=True,
        )
        assert finished.returncode == 0, finished.stderr[-3000:]
        return finished.stdout

    def start_dag(self, dag_id: str, parameters: Mapping[str, object]) -> DagRun:
        """Trigger a DAG."""
        self.airflow.wait_for_dag(dag_id, timeout_seconds=120)
        return self.airflow.trigger_dag(dag_id, parameters)

    def run_dag(self, dag_id: str, **parameters: object) -> DagRun:
        """Trigger a DAG and wait for its end."""
        return self.airflow.wait_for_run(self.start_dag(dag_id, parameters), PATIENCE_SECONDS)

    def answer_approval(self, run: DagRun, task_id: str, is_approved: bool) -> None:
        """Answer a task that waits, once Airflow is ready for it.

        An answer that comes before the scheduler has heard that the task is parked, which takes seconds, makes
        Airflow 3.3 try the task again.
        """
        heard = (
            f"Received executor event with state success for task instance TaskInstanceKey(dag_id='{run.dag_id}', "
            f"task_id='{task_id}', run_id='{run.run_id}'"
        )
        log = self.status.folder / "logs" / "airflow-scheduler.log"
        wait_until(lambda: heard in log.read_text(encoding="utf-8"))
        self.airflow.answer_approval(run.dag_id, run.run_id, task_id, is_approved)

    def read_states(self, run: DagRun) -> dict[str, str | None]:
        """The state of each task."""
        return {task.task_id: task.state for task in self.airflow.read_task_instances(run.dag_id, run.run_id)}

    def read_logs(self, run: DagRun) -> str:
        """The end of each failed task's log, for the message of an assertion."""
        tasks = self.airflow.read_task_instances(run.dag_id, run.run_id)
        failed = [task for task in tasks if task.state == "failed"]
        return "\n".join(
            f"{task.task_id}: {self.airflow.read_log(run.dag_id, run.run_id, task)[-3000:]}" for task in failed
        )

    def query(self, statement: str, **parameters: Any) -> list[tuple[Any, ...]]:
        """The rows of a statement."""
        engine = create_engine(driver_url(self.environment["CATALOG_DATABASE_URL"]))
        with engine.connect() as connection:
            rows = [tuple(row) for row in connection.execute(text(statement), parameters)]
        engine.dispose()
        return rows


def wait_until(is_so: Callable[[], bool], timeout_seconds: float = 120.0) -> None:
    """Look every half second, and fail when it does not come true in time."""
    deadline = time.monotonic() + timeout_seconds
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.5)


@pytest.fixture(scope="session")
def stack() -> Iterator[LiveStack]:
    """The stack; it ends with the tests."""
    with make_stack_folder() as folder:
        dags = folder.parent / "dags"
        dags.mkdir()
        for dag in (*PROJECT_ROOT.glob("dags/*.py"), *SMALL_DAGS.glob("*.py")):
            (dags / dag.name).symlink_to(dag)
        with patch.dict(os.environ, CONFIGURATION):
            status = start_stack(folder, WantedPorts(), AirflowOptions(dags_folder=dags))
        assert status.airflow_url is not None
        assert status.password is not None
        with AirflowClient(status.airflow_url, status.username, status.password) as airflow:
            stack = LiveStack(status, airflow)
            stack.run_job("migrate")
            yield stack
        stop_stack(folder)
