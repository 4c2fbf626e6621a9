"""Run a DAG, or attach to its active run, and follow it to its end by what Airflow and the running jobs report."""

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
from demo.task_logs import locate_task_log, measure_task_log, read_last_error, read_last_lines
from jobs.database.engine import translate_database_faults
from jobs.database.job_progress import RunningJob, list_running_jobs
from jobs.errors import RefusedError, RetryableError
from jobs.local.airflow_services import locate_task_logs
from jobs.local.stack_files import hold_lock

STALL_SECONDS = 300.0
"""Nothing moves for this long when a run is given up: no state, no report of a job, no line in a log."""
_DAG_SECONDS = 120.0
_POLL_SECONDS = 1.0
_FRESH_SECONDS = 60.0
_LOG_LINES_SHOWN = 5
_AT_WORK = frozenset({"running", "deferred", "awaiting_input"})
_WAITING = frozenset({"queued", "scheduled", "up_for_retry", "up_for_reschedule", "restarting"})


@dataclass(frozen=True)
class _Look:
    """A run at one moment; ``jobs`` are all that run, of other runs too."""

    run: DagRun
    tasks: Sequence[TaskInstance]
    jobs: Sequence[RunningJob]

    @property
    def job_run_id(self) -> str:
        """The run's id as jobs know it."""
        return f"{self.run.dag_id}/{self.run.run_id}"

    @property
    def unfinished(self) -> list[TaskInstance]:
        """The tasks at work, or else those that wait."""
        at_work = [task for task in self.tasks if task.state in _AT_WORK]
        return at_work or [task for task in self.tasks if task.state in _WAITING]


def hold_preparation_lock(folder: Path) -> AbstractContextManager[None]:
    """Let one command at a time prepare and trigger runs of the stack in ``folder``; several may follow one run."""
    return hold_lock(folder / "prepare.lock", "another command prepares a run")


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
        """Follow the oldest active run, or else one that is triggered with the parameters that ``prepare`` returns.

        Without ``attach`` a run is triggered in any case. Ctrl-C leaves the run alive in Airflow.

        Raises:
            PermanentError, RetryableError: as `follow` does.
        """
        self._airflow.wait_for_dag(dag_id, _DAG_SECONDS)
        with hold_preparation_lock(self._folder):
            active = self._airflow.list_runs(dag_id, ("queued", "running")) if attach else []
            run = active[0] if active else self._airflow.trigger_dag(dag_id, prepare())
        if active:
            write(f"   attached to the run {run.run_id}, which is still active")
        try:
            return self.follow(run, choose_display(write))
        except KeyboardInterrupt:
            write(
                f"   the run goes on in Airflow, at {self._airflow.make_run_url(run)}; the same command attaches to it"
            )
            raise

    def follow(self, run: DagRun, display: RunDisplay) -> DagRun:
        """Return once the run has succeeded, however long it takes.

        Raises:
            RefusedError: it failed; the message names each failed task, its error and its log.
            RetryableError: nothing moved for several minutes; the message names what stands still, and its log.
        """
        with display:
            look = self._watch(run, display)
        if look.run.state != "success":
            raise RefusedError(self._describe_failure(look))
        return look.run

    def _watch(self, run: DagRun, display: RunDisplay) -> _Look:
        look, signs, moved = _Look(run, (), ()), "", time.monotonic()
        while True:
            fault = None
            try:
                look = self._look(run)
            except RetryableError as error:
                # Airflow or the database is away: not for long, or the run counts as one that stands still.
                fault = error
            display.show(_make_view(look))
            if look.run.is_finished:
                return look
            if (now := self._read_signs(look)) != signs:
                signs, moved = now, time.monotonic()
            if time.monotonic() - moved > self._stall_seconds:
                raise RetryableError(self._describe_stall(look, fault))
            time.sleep(_POLL_SECONDS)

    def _look(self, run: DagRun) -> _Look:
        # The run before its tasks: when it has ended, so have they.
        now = self._airflow.read_run(run.dag_id, run.run_id)
        tasks = self._airflow.read_task_instances(run.dag_id, run.run_id)
        with translate_database_faults(str(self._engine.url)), self._engine.connect() as connection:
            return _Look(now, tasks, list_running_jobs(connection))

    def _read_signs(self, look: _Look) -> str:
        """Read all that changes as long as the run moves.

        A run that waits, for a slot that another run holds, moves as that one does.
        """
        states = [(task.name, task.state, task.try_number) for task in look.tasks]
        is_at_work = any(task.state in _AT_WORK for task in look.tasks)
        jobs = [job for job in look.jobs if not is_at_work or _belongs(job, look)]
        logs = [measure_task_log(locate_task_log(self._logs, look.run, task)) for task in look.unfinished]
        return repr([look.run.state, states, [(job.run_id, job.task, job.updated_at) for job in jobs], logs])

    def _describe_failure(self, look: _Look) -> str:
        lines = [f"the run {look.run.run_id} of {look.run.dag_id} failed, see {self._airflow.make_run_url(look.run)}"]
        for task in look.tasks:
            if task.state == "failed":
                log = locate_task_log(self._logs, look.run, task)
                reason = read_last_error(log) or "its log names no error"
                lines.append(f"  {task.name}: {reason}\n    log: {log}")
        return "\n".join(lines)

    def _describe_stall(self, look: _Look, fault: RetryableError | None) -> str:
        lines = [f"nothing has moved for {self._stall_seconds:.0f} s in the run {look.run.run_id} of {look.run.dag_id}"]
        for task in look.unfinished:
            log = locate_task_log(self._logs, look.run, task)
            lines.append(f"  {task.name}: {task.state}\n    log: {log}")
            lines += [f"      {line}" for line in read_last_lines(log, _LOG_LINES_SHOWN)]
        if not look.unfinished:
            lines.append(f"  the run is {look.run.state} and none of its tasks has started")
        if fault:
            lines.append(f"  {fault}")
        lines.append(f"It is still {look.run.state} in Airflow, at {self._airflow.make_run_url(look.run)}")
        return "\n".join(lines)


def _belongs(job: RunningJob, look: _Look) -> bool:
    """Tell whether a job is of the run, or of one whose id lies below its own."""
    return job.run_id == look.job_run_id or job.run_id.startswith(f"{look.job_run_id}/")


def _make_view(look: _Look) -> RunView:
    own = {job.task: job.progress for job in look.jobs if job.run_id == look.job_run_id}
    others = [job for job in look.jobs if job.run_id != look.job_run_id and job.seconds_without_news < _FRESH_SECONDS]
    return RunView(
        tuple(TaskView(task.name, task.state, _measure_seconds(task), own.get(task.name)) for task in look.tasks),
        tuple(TaskView(_name_other(job, look), "running", job.seconds_running, job.progress) for job in others),
    )


def _name_other(job: RunningJob, look: _Look) -> str:
    """Name a job of another run by its DAG, and one of a part of this run by the part."""
    part = job.run_id.removeprefix(f"{look.job_run_id}/") if _belongs(job, look) else job.run_id.partition("/")[0]
    return f"{part} {job.task}"


def _measure_seconds(task: TaskInstance) -> float | None:
    if task.started_at is None:
        return None
    return ((task.ended_at or datetime.now(UTC)) - task.started_at).total_seconds()
