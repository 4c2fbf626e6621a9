"""Use Airflow's REST API: trigger DAGs, follow their runs, and read logs and results."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx

from jobs.errors import NotFoundError, RefusedError, RetryableError

_API = "/api/v2"
_PAGE_SIZE = 100
_POLL_SECONDS = 1.0
_TIMEOUT_SECONDS = 30.0
_LOGIN_SECONDS = 3600.0
"""Log in again after this time. A token is valid for a day."""


@dataclass(frozen=True)
class DagRun:
    """A run of a DAG. ``state`` is queued, running, success or failed."""

    dag_id: str
    run_id: str
    state: str
    started_at: datetime | None
    ended_at: datetime | None

    @property
    def is_finished(self) -> bool:
        """Tell whether the run has ended."""
        return self.state in ("success", "failed")


@dataclass(frozen=True)
class TaskInstance:
    """A task of a run. ``map_index`` is -1 if it is not mapped; ``state`` is None before it is scheduled.

    The times are those of the latest attempt.
    """

    task_id: str
    map_index: int
    state: str | None
    try_number: int
    started_at: datetime | None
    ended_at: datetime | None

    @property
    def name(self) -> str:
        """Return the task's id, followed by the index of a mapped task in brackets."""
        return self.task_id if self.map_index < 0 else f"{self.task_id}[{self.map_index}]"


class AirflowClient:
    """An API session of one user.

    Every call raises RetryableError if Airflow is unreachable or fails, and PermanentError if it rejects the request.
    """

    def __init__(self, base_url: str, username: str, password: str) -> None:
        # Airflow runs on this machine, so ignore the proxy settings in the environment.
        self._http = httpx.Client(base_url=base_url, timeout=_TIMEOUT_SECONDS, trust_env=False)
        self._login = {"username": username, "password": password}
        self._logged_in: float | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def read_import_errors(self) -> dict[str, str]:
        """Return the tracebacks of the DAG files that failed to load, by file name."""
        errors = self._list(f"{_API}/importErrors", "import_errors")
        return {error["filename"]: error["stack_trace"] for error in errors}

    def has_dag(self, dag_id: str) -> bool:
        """Tell whether the DAG has been loaded from its file."""
        return self._list(f"{_API}/dags", "dags", dag_id_pattern=dag_id, exclude_stale=True) != []

    def wait_for_dag(self, dag_id: str, timeout_seconds: float) -> None:
        """Wait until the DAG has been loaded from its file, which takes a few seconds after a start of Airflow.

        Raises:
            PermanentError: the DAG was not loaded in time; the message lists the files that failed to load.
        """
        deadline = time.monotonic() + timeout_seconds
        while not self.has_dag(dag_id):
            if time.monotonic() > deadline:
                errors = [
                    f"{name}: {trace.strip().splitlines()[-1]}" for name, trace in self.read_import_errors().items()
                ]
                raise NotFoundError("; ".join([f"Airflow has no DAG {dag_id} after {timeout_seconds:.0f} s", *errors]))
            time.sleep(_POLL_SECONDS)

    def trigger_dag(self, dag_id: str, conf: Mapping[str, Any] | None = None) -> DagRun:
        """Start a run with the parameters ``conf``."""
        body = {"logical_date": None, "conf": dict(conf or {})}
        return _read_run(self._call("POST", f"{_API}/dags/{quote(dag_id)}/dagRuns", json=body))

    def read_run(self, dag_id: str, run_id: str) -> DagRun:
        """Return the run in its current state."""
        return _read_run(self._call("GET", _locate_run(dag_id, run_id)))

    def read_task_instances(self, dag_id: str, run_id: str) -> list[TaskInstance]:
        """Return the current state of every task of the run. Mapped tasks are listed individually."""
        found = self._list(f"{_locate_run(dag_id, run_id)}/taskInstances", "task_instances")
        return [
            TaskInstance(
                task_id=fields["task_id"],
                map_index=fields["map_index"],
                state=fields["state"],
                try_number=fields["try_number"],
                started_at=_read_time(fields, "start_date"),
                ended_at=_read_time(fields, "end_date"),
            )
            for fields in found
        ]

    def read_xcom(self, dag_id: str, run_id: str, task_id: str, key: str = "return_value", map_index: int = -1) -> Any:
        """Return the value that a task stored under ``key``."""
        path = f"{_locate_run(dag_id, run_id)}/taskInstances/{quote(task_id)}/xcomEntries/{quote(key)}"
        return self._call("GET", path, params={"map_index": map_index, "stringify": False})["value"]

    def read_log(self, dag_id: str, run_id: str, task: TaskInstance) -> str:
        """Return the log of the task's latest attempt, one line for each message."""
        path = f"{_locate_run(dag_id, run_id)}/taskInstances/{quote(task.task_id)}/logs/{task.try_number}"
        content = self._call("GET", path, params={"map_index": task.map_index, "full_content": True})["content"]
        return "\n".join(line if isinstance(line, str) else line["event"] for line in content)

    def answer_approval(self, dag_id: str, run_id: str, task_id: str, is_approved: bool) -> None:
        """Approve or reject a task that is waiting for approval."""
        path = f"{_locate_run(dag_id, run_id)}/taskInstances/{quote(task_id)}/-1/hitlDetails"
        self._call("PATCH", path, json={"chosen_options": ["Approve" if is_approved else "Reject"]})

    def read_approval_text(self, dag_id: str, run_id: str, task_id: str) -> str:
        """Return the text shown to the person who approves a task."""
        path = f"{_locate_run(dag_id, run_id)}/taskInstances/{quote(task_id)}/-1/hitlDetails"
        text: str = self._call("GET", path)["body"]
        return text

    def read_links(self, dag_id: str, run_id: str, task_id: str) -> dict[str, str | None]:
        """Return the extra links of a task by name."""
        path = f"{_locate_run(dag_id, run_id)}/taskInstances/{quote(task_id)}/links"
        links: dict[str, str | None] = self._call("GET", path)["extra_links"]
        return links

    def list_runs(self, dag_id: str, states: Sequence[str] = ()) -> list[DagRun]:
        """Return the runs of a DAG, oldest first; with ``states``, only the runs in one of these states."""
        path = f"{_API}/dags/{quote(dag_id)}/dagRuns"
        runs = self._list(path, "dag_runs", order_by="id", state=list(states))
        return [_read_run(run) for run in runs]

    def read_page(self, path: str) -> str:
        """Return a page of the API server that requires a login."""
        self._log_in()
        return self._send("GET", path).text

    def make_run_url(self, run: DagRun) -> str:
        """Return the URL of a run in Airflow's UI."""
        return f"{self._http.base_url}/dags/{quote(run.dag_id)}/runs/{quote(run.run_id)}"

    def wait_for_run(self, run: DagRun, timeout_seconds: float) -> DagRun:
        """Wait until a run has succeeded or failed.

        Raises:
            RetryableError: the run did not end in time.
        """
        deadline = time.monotonic() + timeout_seconds
        while not (now := self.read_run(run.dag_id, run.run_id)).is_finished:
            if time.monotonic() > deadline:
                raise RetryableError(f"{run.dag_id} is still {now.state} after {timeout_seconds:.0f} s")
            time.sleep(_POLL_SECONDS)
        return now

    def _list(self, path: str, field: str, **params: Any) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = []
        while True:
            page = self._call("GET", path, params={**params, "limit": _PAGE_SIZE, "offset": len(entries)})
            entries += page[field]
            if not page[field] or len(entries) >= page["total_entries"]:
                return entries

    def _call(self, method: str, path: str, **request: Any) -> Any:
        self._log_in()
        return self._send(method, path, **request).json()

    def _log_in(self) -> None:
        if self._logged_in is None or time.monotonic() - self._logged_in > _LOGIN_SECONDS:
            token = self._send("POST", "/auth/token", json=self._login).json()["access_token"]
            self._http.headers["Authorization"] = f"Bearer {token}"
            self._logged_in = time.monotonic()

    def _send(self, method: str, path: str, **request: Any) -> httpx.Response:
        try:
            response = self._http.request(method, path, **request)
        except httpx.TransportError as error:
            raise RetryableError(f"Airflow at {self._http.base_url} does not respond: {error}") from None
        if response.is_server_error:
            raise RetryableError(f"Airflow failed on {method} {path} with {response.status_code}: see its log")
        if response.is_error:
            kind = NotFoundError if response.status_code == httpx.codes.NOT_FOUND else RefusedError
            raise kind(f"Airflow rejected {method} {path} with {response.status_code}: {response.text[:300]}")
        return response


def _read_run(fields: Mapping[str, Any]) -> DagRun:
    return DagRun(
        dag_id=fields["dag_id"],
        run_id=fields["dag_run_id"],
        state=fields["state"],
        started_at=_read_time(fields, "start_date"),
        ended_at=_read_time(fields, "end_date"),
    )


def _read_time(fields: Mapping[str, Any], name: str) -> datetime | None:
    time = fields.get(name)
    return datetime.fromisoformat(time) if time else None


def _locate_run(dag_id: str, run_id: str) -> str:
    return f"{_API}/dags/{quote(dag_id)}/dagRuns/{quote(run_id)}"
