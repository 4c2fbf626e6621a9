"""A client of Airflow's REST API, for the demo and the tests: trigger a DAG, follow it, read what it left."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx

from jobs.errors import PermanentError, RetryableError

_API = "/api/v2"
_PAGE_SIZE = 100
_POLL_SECONDS = 1.0
_TIMEOUT_SECONDS = 30.0
_LOGIN_SECONDS = 3600.0
"""A token is used for this long; it is valid for a day."""


@dataclass(frozen=True)
class ComponentHealth:
    """A part of Airflow as it sees itself; ``latest_heartbeat`` is None for what never ran or has none."""

    is_healthy: bool
    latest_heartbeat: datetime | None


@dataclass(frozen=True)
class DagRun:
    """``state`` is queued, running, success or failed; the times are None before they come."""

    dag_id: str
    run_id: str
    state: str
    started_at: datetime | None
    ended_at: datetime | None

    @property
    def is_finished(self) -> bool:
        """Whether nothing more will happen."""
        return self.state in ("success", "failed")


@dataclass(frozen=True)
class TaskInstance:
    """One task of a run; ``map_index`` is -1 where the task is not mapped, ``state`` None before it is scheduled.

    The times are those of the latest attempt, and None before they come.
    """

    task_id: str
    map_index: int
    state: str | None
    try_number: int
    started_at: datetime | None
    ended_at: datetime | None

    @property
    def name(self) -> str:
        """The id, and the number of a mapped task in brackets."""
        return self.task_id if self.map_index < 0 else f"{self.task_id}[{self.map_index}]"


class AirflowClient:
    """A session with a name and a password.

    Each call raises RetryableError when Airflow does not answer, and PermanentError when it refuses.
    """

    def __init__(self, base_url: str, username: str, password: str) -> None:
        # A proxy named in the environment has no business between two processes of one machine.
        self._http = httpx.Client(base_url=base_url, timeout=_TIMEOUT_SECONDS, trust_env=False)
        self._login = {"username": username, "password": password}
        self._logged_in: float | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def read_health(self) -> dict[str, ComponentHealth]:
        """The health of ``metadatabase``, ``scheduler``, ``triggerer`` and ``dag_processor``; needs no login."""
        report = self._send("GET", f"{_API}/monitor/health").json()
        return {name: _read_component(name, fields) for name, fields in report.items()}

    def set_pool(self, name: str, slots: int, description: str) -> None:
        """Create the pool, or give it this many slots."""
        pool = {"name": name, "slots": slots, "description": description, "include_deferred": False}
        action = {"action": "create", "entities": [pool], "action_on_existence": "overwrite"}
        self._call("PATCH", f"{_API}/pools", json={"actions": [action]})

    def read_pool_slots(self, name: str) -> int:
        """How many tasks the pool lets run at a time."""
        slots: int = self._call("GET", f"{_API}/pools/{quote(name)}")["slots"]
        return slots

    def read_import_errors(self) -> dict[str, str]:
        """The trace of each DAG file that could not be loaded, by the file's name."""
        errors = self._list(f"{_API}/importErrors", "import_errors")
        return {error["filename"]: error["stack_trace"] for error in errors}

    def has_dag(self, dag_id: str) -> bool:
        """Whether the DAG has been loaded from its file."""
        return self._list(f"{_API}/dags", "dags", dag_id_pattern=dag_id, exclude_stale=True) != []

    def wait_for_dag(self, dag_id: str, timeout_seconds: float) -> None:
        """Return once the DAG has been loaded from its file, which a fresh Airflow needs some seconds for.

        Raises:
            PermanentError: its file cannot be loaded, or it is not there in time.
        """
        deadline = time.monotonic() + timeout_seconds
        while not self.has_dag(dag_id):
            if time.monotonic() > deadline:
                faults = [
                    f"{name}: {trace.strip().splitlines()[-1]}" for name, trace in self.read_import_errors().items()
                ]
                raise PermanentError("; ".join([f"Airflow has no DAG {dag_id} after {timeout_seconds:.0f} s", *faults]))
            time.sleep(_POLL_SECONDS)

    def trigger_dag(self, dag_id: str, conf: Mapping[str, Any] | None = None) -> DagRun:
        """Start a run with these parameters."""
        body = {"logical_date": None, "conf": dict(conf or {})}
        return _read_run(self._call("POST", f"{_API}/dags/{quote(dag_id)}/dagRuns", json=body))

    def read_run(self, dag_id: str, run_id: str) -> DagRun:
        """The run as it stands."""
        return _read_run(self._call("GET", _locate_run(dag_id, run_id)))

    def read_task_instances(self, dag_id: str, run_id: str) -> list[TaskInstance]:
        """Every task of the run as it stands, each mapped one by itself."""
        found = self._list(f"{_locate_run(dag_id, run_id)}/taskInstances", "task_instances")
        return [
            TaskInstance(
                task_id=one["task_id"],
                map_index=one["map_index"],
                state=one["state"],
                try_number=one["try_number"],
                started_at=_read_time(one, "start_date"),
                ended_at=_read_time(one, "end_date"),
            )
            for one in found
        ]

    def read_xcom(self, dag_id: str, run_id: str, task_id: str, key: str = "return_value", map_index: int = -1) -> Any:
        """The value that a task left under ``key``."""
        path = f"{_locate_run(dag_id, run_id)}/taskInstances/{quote(task_id)}/xcomEntries/{quote(key)}"
        return self._call("GET", path, params={"map_index": map_index, "stringify": False})["value"]

    def read_log(self, dag_id: str, run_id: str, task: TaskInstance) -> str:
        """What the task's latest attempt logged, a line for each message."""
        path = f"{_locate_run(dag_id, run_id)}/taskInstances/{quote(task.task_id)}/logs/{task.try_number}"
        content = self._call("GET", path, params={"map_index": task.map_index, "full_content": True})["content"]
        return "\n".join(line if isinstance(line, str) else line["event"] for line in content)

    def answer_approval(self, dag_id: str, run_id: str, task_id: str, is_approved: bool) -> None:
        """Say for a human whether a task that waits for an approval may go on."""
        path = f"{_locate_run(dag_id, run_id)}/taskInstances/{quote(task_id)}/-1/hitlDetails"
        self._call("PATCH", path, json={"chosen_options": ["Approve" if is_approved else "Reject"]})

    def read_approval_text(self, dag_id: str, run_id: str, task_id: str) -> str:
        """What a human is shown who is to approve."""
        path = f"{_locate_run(dag_id, run_id)}/taskInstances/{quote(task_id)}/-1/hitlDetails"
        text: str = self._call("GET", path)["body"]
        return text

    def read_links(self, dag_id: str, run_id: str, task_id: str) -> dict[str, str | None]:
        """The extra links of a task by their names."""
        path = f"{_locate_run(dag_id, run_id)}/taskInstances/{quote(task_id)}/links"
        links: dict[str, str | None] = self._call("GET", path)["extra_links"]
        return links

    def list_runs(self, dag_id: str, states: Sequence[str] = ()) -> list[DagRun]:
        """The runs of a DAG, or those in one of the states; the oldest first."""
        path = f"{_API}/dags/{quote(dag_id)}/dagRuns"
        runs = self._list(path, "dag_runs", order_by="id", state=list(states))
        return [_read_run(run) for run in runs]

    def read_page(self, path: str) -> str:
        """A page that the API server shows to those who are logged in."""
        self._log_in()
        return self._send("GET", path).text

    def make_run_url(self, run: DagRun) -> str:
        """Return the address of a run in Airflow's UI."""
        return f"{self._http.base_url}/dags/{quote(run.dag_id)}/runs/{quote(run.run_id)}"

    def wait_for_run(self, run: DagRun, timeout_seconds: float) -> DagRun:
        """Wait for the end of a run, whatever that is.

        Raises:
            RetryableError: it has not ended in time.
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
            raise RetryableError(f"Airflow at {self._http.base_url} does not answer: {error}") from None
        if response.is_server_error:
            raise RetryableError(f"Airflow failed at {method} {path} with {response.status_code}: see its log")
        if response.is_error:
            raise PermanentError(f"Airflow refused {method} {path} with {response.status_code}: {response.text[:300]}")
        return response


def _read_component(name: str, fields: Mapping[str, str | None]) -> ComponentHealth:
    return ComponentHealth(fields["status"] == "healthy", _read_time(fields, f"latest_{name}_heartbeat"))


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
