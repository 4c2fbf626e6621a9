"""Run a DAG or attach to its active run, and follow it to its end.

Progress comes from Airflow, from the running jobs, and from the logs of Airflow's tasks. These logs are files in the
local stack with one JSON object per line.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from demo.airflow_client import AirflowClient, DagRun, TaskInstance
from demo.run_display import RunDisplay, RunView, TaskView, Write, choose_display
from jobs.database.engine import translate_database_errors
from jobs.database.job_progress import RunningJob, list_running_jobs
from jobs.errors import RefusedError, RetryableError
from jobs.local.airflow_services import locate_task_logs
from jobs.local.stack_files import hold_lock

STALL_SECONDS = 300.0
"""Treat a run as stalled after this time without a state change, a progress report or a new line in a log."""
_DAG_SECONDS = 120.0
_POLL_SECONDS = 1.0
_MAX_SILENCE_SECONDS = 60.0
_LOG_LINES_SHOWN = 5
_ACTIVE = frozenset({"running", "deferred", "awaiting_input"})
_WAITING = frozenset({"queued", "scheduled", "up_for_retry", "up_for_reschedule", "restarting"})


@dataclass(frozen=True)
class _RunState:
    """The state of a run. ``jobs`` are all running jobs, including those of other runs."""

    run: DagRun
    tasks: Sequence[TaskInstance]
    jobs: Sequence[RunningJob]

    @property
    def job_run_id(self) -> str:
        """Return the run id that this run's jobs report."""
        return f"{self.run.dag_id}/{self.run.run_id}"

    @property
    def unfinished(self) -> list[TaskInstance]:
        """Return the active tasks, or the waiting tasks if none is active."""
        active = [task for task in self.tasks if task.state in _ACTIVE]
        return active or [task for task in self.tasks if task.state in _WAITING]


def hold_preparation_lock(folder: Path) -> AbstractContextManager[None]:
    """Let only one command at a time prepare and trigger runs of a stack. Any number of commands may follow a run."""
    return hold_lock(folder / "prepare.lock", "another command is preparing a run")


class RunFollower:
    """Runs DAGs of the local stack in ``folder``."""

    def __init__(
        self, airflow: AirflowClient, engine: Engine, folder: Path, stall_seconds: float = STALL_SECONDS
    ) -> None:
        self._airflow = airflow
        self._engine = engine
        self._folder = folder
        self._logs = locate_task_logs(folder)
        self._stall_seconds = stall_seconds

    def run_dag(
        self, dag_id: str, prepare: Callable[[], Mapping[str, Any]], write: Write, *, attach: bool = True
    ) -> DagRun:
        """Follow the oldest active run, or trigger one with the parameters that ``prepare`` returns.

        Without ``attach``, always triggers a run. Ctrl-C does not stop the run in Airflow.

        Raises:
            PermanentError, RetryableError: as in `follow`, or if the DAG cannot be loaded or triggered.
        """
        self._airflow.wait_for_dag(dag_id, _DAG_SECONDS)
        with hold_preparation_lock(self._folder):
            active = self._airflow.list_runs(dag_id, ("queued", "running")) if attach else []
            run = active[0] if active else self._airflow.trigger_dag(dag_id, prepare())
        if active:
            write(f"   attached to the active run {run.run_id}")
        try:
            return self.follow(run, choose_display(write))
        except KeyboardInterrupt:
            url = self._airflow.make_run_url(run)
            write(f"   the run continues in Airflow, at {url}; the same command attaches to it")
            raise

    def follow(self, run: DagRun, display: RunDisplay) -> DagRun:
        """Wait until the run has succeeded, however long it takes.

        Raises:
            RefusedError: the run failed; the message names each failed task, its error and its log.
            RetryableError: the run is stalled; the message names the tasks that make no progress, and their logs.
        """
        with display:
            state = self._watch(run, display)
        if state.run.state != "success":
            raise RefusedError(self._describe_failure(state))
        return state.run

    def _watch(self, run: DagRun, display: RunDisplay) -> _RunState:
        state, signs, moved = _RunState(run, (), ()), "", time.monotonic()
        while True:
            poll_error = None
            try:
                state = self._read_state(run)
            except RetryableError as error:
                # Airflow or the database is unavailable. If that lasts, the run counts as stalled.
                poll_error = error
            display.show(_make_view(state))
            if state.run.is_finished:
                return state
            if (now := self._read_signs(state)) != signs:
                signs, moved = now, time.monotonic()
            if time.monotonic() - moved > self._stall_seconds:
                raise RetryableError(self._describe_stall(state, poll_error))
            time.sleep(_POLL_SECONDS)

    def _read_state(self, run: DagRun) -> _RunState:
        # Read the run before its tasks: if it has ended, so have they.
        now = self._airflow.read_run(run.dag_id, run.run_id)
        tasks = self._airflow.read_task_instances(run.dag_id, run.run_id)
        with translate_database_errors(str(self._engine.url)), self._engine.connect() as connection:
            return _RunState(now, tasks, list_running_jobs(connection))

    def _read_signs(self, state: _RunState) -> str:
        """Return everything that changes while the run makes progress.

        While a run waits for a slot, the progress of other runs counts too.
        """
        states = [(task.name, task.state, task.try_number) for task in state.tasks]
        is_at_work = any(task.state in _ACTIVE for task in state.tasks)
        jobs = [job for job in state.jobs if not is_at_work or _belongs(job, state)]
        logs = [get_log_size(locate_task_log(self._logs, state.run, task)) for task in state.unfinished]
        return repr([state.run.state, states, [(job.run_id, job.task, job.updated_at) for job in jobs], logs])

    def _describe_failure(self, state: _RunState) -> str:
        lines = [
            f"the run {state.run.run_id} of {state.run.dag_id} failed: see {self._airflow.make_run_url(state.run)}"
        ]
        for task in state.tasks:
            if task.state == "failed":
                log = locate_task_log(self._logs, state.run, task)
                reason = read_last_error(log) or "no error in its log"
                lines.append(f"  {task.name}: {reason}\n    log: {log}")
        return "\n".join(lines)

    def _describe_stall(self, state: _RunState, poll_error: RetryableError | None) -> str:
        lines = [f"no progress for {self._stall_seconds:.0f} s in the run {state.run.run_id} of {state.run.dag_id}"]
        for task in state.unfinished:
            log = locate_task_log(self._logs, state.run, task)
            lines.append(f"  {task.name}: {task.state}\n    log: {log}")
            lines += [f"      {line}" for line in read_last_lines(log, _LOG_LINES_SHOWN)]
        if not state.unfinished:
            lines.append(f"  the run is {state.run.state} and none of its tasks has started")
        if poll_error:
            lines.append(f"  {poll_error}")
        lines.append(f"It is still {state.run.state} in Airflow, at {self._airflow.make_run_url(state.run)}")
        return "\n".join(lines)


def _belongs(job: RunningJob, state: _RunState) -> bool:
    """Tell whether a job belongs to the run or to a part of it."""
    return job.run_id == state.job_run_id or job.run_id.startswith(f"{state.job_run_id}/")


def _make_view(state: _RunState) -> RunView:
    own = {job.task: job.progress for job in state.jobs if job.run_id == state.job_run_id}
    others = [
        job for job in state.jobs if job.run_id != state.job_run_id and job.seconds_without_news < _MAX_SILENCE_SECONDS
    ]
    return RunView(
        tuple(TaskView(task.name, task.state, _measure_seconds(task), own.get(task.name)) for task in state.tasks),
        tuple(TaskView(_name_other(job, state), "running", job.seconds_running, job.progress) for job in others),
    )


def _name_other(job: RunningJob, state: _RunState) -> str:
    """Return a job's name with the prefix of its DAG (for another run) or of its part (for a part of this run)."""
    part = job.run_id.removeprefix(f"{state.job_run_id}/") if _belongs(job, state) else job.run_id.partition("/")[0]
    return f"{part} {job.task}"


def _measure_seconds(task: TaskInstance) -> float | None:
    if task.started_at is None:
        return None
    return ((task.ended_at or datetime.now(UTC)) - task.started_at).total_seconds()


def locate_task_log(folder: Path, run: DagRun, task: TaskInstance) -> Path:
    """Return the path of the log of a task's latest attempt."""
    parts = [f"dag_id={run.dag_id}", f"run_id={run.run_id}", f"task_id={task.task_id}"]
    if task.map_index >= 0:
        parts.append(f"map_index={task.map_index}")
    return folder.joinpath(*parts, f"attempt={task.try_number}.log")


def get_log_size(path: Path) -> int:
    """Return the size of a log in bytes, 0 if it does not exist yet."""
    return path.stat().st_size if path.exists() else 0


def read_last_lines(path: Path, count: int) -> list[str]:
    """Return the last messages of a log, which may not exist yet."""
    return [entry["event"] for entry in _read_entries(path)][-count:]


def read_last_error(path: Path) -> str | None:
    """Return the text of the last exception in a log, or the last error message if it contains no exception."""
    errors = [entry for entry in _read_entries(path) if entry.get("level") in {"error", "critical"}]
    if not errors:
        return None
    details = errors[-1].get("error_detail")
    message: str = details[0]["exc_value"] if details else errors[-1]["event"]
    return message


def _read_entries(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    entries = map(_read_entry, path.read_text(encoding="utf-8", errors="replace").splitlines())
    return [entry for entry in entries if entry["event"] and not entry["event"].startswith("::")]


def _read_entry(line: str) -> dict[str, Any]:
    """Parse a log line. If it is not JSON, because the task was killed while writing it, return it as a message."""
    try:
        entry = json.loads(line)
    except json.JSONDecodeError:
        return {"event": line}
    return {**entry, "event": str(entry.get("event", ""))} if isinstance(entry, dict) else {"event": line}
