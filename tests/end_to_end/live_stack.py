"""Control the local stack, with Airflow, that all tests in this folder share."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx
from sqlalchemy import create_engine, text

from demo.airflow_client import AirflowClient, DagRun
from fixtures.notification_receivers import Receivers
from fixtures.stack_access import connect_s3, read_environment
from jobs.connections import Connections, connect
from jobs.database.engine import driver_url
from jobs.local.airflow_services import AirflowOptions
from jobs.local.ports import LOOPBACK, WantedPorts, find_free_ports
from jobs.local.stack import StackStatus, start_stack
from jobs.settings import PROJECT_ROOT, make_settings

CONFIGURATION = {
    "CATALOG_TEST_SHARE": "0.2",
    "CATALOG_GATE_POLICY": str(Path(__file__).with_name("lenient_gates.toml")),
    "CATALOG_FAILED_SHARE_LIMIT": "1",
    "CATALOG_PRECISION": "fp32",
}
"""Gates are lenient here; benchmarks use the default gates. The precision is fp32, because the search for an int8 build
takes a minute of CPU time for each candidate.
"""

UNREACHABLE = "error:form://127.0.0.1:9/?token=hush"
"""A URL for notifications that no server answers."""

SMALL_DAGS = Path(__file__).with_name("small_dags")
PROJECT_DAGS = (
    "catalog_deliver",
    "catalog_ingest",
    "catalog_maintenance",
    "catalog_retag",
    "model_decision",
    "model_retrain",
)
PATIENCE_SECONDS = 600.0
POLL_SECONDS = 0.2
POOL_SLOTS = 3

_TRUNCATE = """
    DO $$ DECLARE one text; tables text[] := ARRAY (
        SELECT tablename FROM pg_tables WHERE schemaname = 'catalog' AND tablename <> 'migrations'
    ); BEGIN
        FOREACH one IN ARRAY tables LOOP
            EXECUTE format('ALTER TABLE catalog.%I DISABLE TRIGGER USER', one);
        END LOOP;
        EXECUTE (SELECT 'TRUNCATE ' || string_agg(format('catalog.%I', name), ', ') FROM unnest(tables) AS name);
        FOREACH one IN ARRAY tables LOOP
            EXECUTE format('ALTER TABLE catalog.%I ENABLE TRIGGER USER', one);
        END LOOP;
    END $$
"""
"""Empties all tables except the list of applied migrations. Disables triggers, which protect the promotion history."""


@dataclass(frozen=True)
class StackHome:
    """The folder and the ports of the stack."""

    folder: Path
    ports: WantedPorts
    receivers: Receivers

    @classmethod
    def make(cls, folder: Path, receivers: Receivers) -> "StackHome":
        """Prepare a stack with the project's DAGs and small DAGs for tests."""
        dags = folder.parent / "dags"
        dags.mkdir()
        for dag in (*PROJECT_ROOT.glob("dags/*.py"), *SMALL_DAGS.glob("*.py")):
            (dags / dag.name).symlink_to(dag)
        return cls(folder, WantedPorts(*find_free_ports(4)), receivers)

    def start(self, ports: WantedPorts | None = None) -> StackStatus:
        """Start the servers that are not running."""
        options = AirflowOptions(dags_folder=self.folder.parent / "dags", pool_slots=POOL_SLOTS)
        # In this order, because tests wait for mails.
        urls = [UNREACHABLE, f"error:{self.receivers.http_url}", self.receivers.mail_url]
        own = {
            "CATALOG_NOTIFY_URLS": json.dumps(urls),
            "AIRFLOW__METRICS__STATSD_ON": "True",
            "AIRFLOW__METRICS__STATSD_HOST": LOOPBACK,
            "AIRFLOW__METRICS__STATSD_PORT": str(self.receivers.statsd_port),
        }
        with patch.dict(os.environ, CONFIGURATION | own):
            return start_stack(self.folder, ports or self.ports, options)


@dataclass(frozen=True)
class LiveStack:
    """A running stack with a migrated catalog."""

    status: StackStatus
    airflow: AirflowClient
    receivers: Receivers

    @property
    def environment(self) -> dict[str, str]:
        """Return the environment of a job that uses this stack."""
        own = {"CATALOG_MODEL_CACHE": str(self.status.folder / "models")}
        return CONFIGURATION | read_environment(self.status.folder) | own

    @contextmanager
    def connect(self) -> Iterator[Connections]:
        """Connect to the catalog and the buckets."""
        with connect(make_settings(self.environment)) as connections:
            yield connections

    def run_job(self, *words: str) -> str:
        """Run ``python -m jobs`` and return its standard output."""
        finished = subprocess.run(
            [sys.executable, "-m", "jobs", *words],
            cwd=PROJECT_ROOT,
            env=os.environ | self.environment,
            check=False,
            capture_output=True,
            text=True,
        )
        assert finished.returncode == 0, finished.stderr[-3000:]
        return finished.stdout

    def start_dag(self, dag_id: str, parameters: Mapping[str, object]) -> DagRun:
        """Trigger a DAG."""
        self.airflow.wait_for_dag(dag_id, PATIENCE_SECONDS)
        return self.airflow.trigger_dag(dag_id, parameters)

    def run_dag(self, dag_id: str, **parameters: object) -> DagRun:
        """Trigger a DAG and wait for its end."""
        return self.airflow.wait_for_run(self.start_dag(dag_id, parameters), PATIENCE_SECONDS)

    def answer_approval(self, run: DagRun, task_id: str, is_approved: bool) -> None:
        """Approve or reject a waiting task, once the scheduler knows that the task is waiting, which takes seconds.

        If the response arrives earlier, Airflow 3.3 retries the task.
        """
        parked = (
            f"Received executor event with state success for task instance TaskInstanceKey(dag_id='{run.dag_id}', "
            f"task_id='{task_id}', run_id='{run.run_id}'"
        )
        logs = self.status.folder / "logs"
        wait_until(lambda: any(parked in log.read_text() for log in logs.glob("airflow-scheduler.*log")))
        self.airflow.answer_approval(run.dag_id, run.run_id, task_id, is_approved)

    def read_states(self, run: DagRun) -> dict[str, str | None]:
        """Return the state of each task."""
        return {task.task_id: task.state for task in self.airflow.read_task_instances(run.dag_id, run.run_id)}

    def read_logs(self, run: DagRun) -> str:
        """Return the end of each failed task's log, for assertion messages."""
        tasks = self.airflow.read_task_instances(run.dag_id, run.run_id)
        failed = [task for task in tasks if task.state == "failed"]
        return "\n".join(
            f"{task.task_id}: {self.airflow.read_log(run.dag_id, run.run_id, task)[-3000:]}" for task in failed
        )

    def query(self, statement: str, **parameters: Any) -> list[tuple[Any, ...]]:
        """Return the rows of a statement."""
        engine = create_engine(driver_url(self.environment["CATALOG_DATABASE_URL"]))
        with engine.connect() as connection:
            rows = [tuple(row) for row in connection.execute(text(statement), parameters)]
        engine.dispose()
        return rows

    def empty_catalog(self) -> None:
        """Wait until no run is active, then delete all rows of the catalog and all images.

        Does not reset ids, because running processes cache models by version id.
        """
        wait_until(self._is_idle, PATIENCE_SECONDS)
        engine = create_engine(driver_url(self.environment["CATALOG_DATABASE_URL"]))
        with engine.begin() as connection:
            connection.execute(text(_TRUNCATE))
        engine.dispose()
        with connect_s3(self.status.folder) as client:
            for page in client.get_paginator("list_objects_v2").paginate(Bucket="images"):
                for found in page.get("Contents", []):
                    client.delete_object(Bucket="images", Key=found["Key"])

    def wait_for_query_service(self) -> None:
        """Wait until the query service has loaded the live models."""
        live = dict(self.query("SELECT kind, model_version_id FROM catalog.live_models"))
        url = self.environment["CATALOG_QUERY_SERVICE_URL"]
        wait_until(lambda: httpx.get(f"{url}/health", trust_env=False).json() == live)

    def _is_idle(self) -> bool:
        runs = [
            run for dag_id in PROJECT_DAGS if self.airflow.has_dag(dag_id) for run in self.airflow.list_runs(dag_id)
        ]
        return all(run.is_finished for run in runs)


def wait_until(condition: Callable[[], bool], timeout_seconds: float = 240.0) -> None:
    """Check a condition several times a second. Fail if it is not true in time."""
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(POLL_SECONDS)
