"""Queries on ``job_progress``: the progress of each running job."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

from jobs.database.records import read_records
from jobs.run_titles import title_run

SHOWN_HOURS = 1
"""How long a killed job is shown after its last update, unless a retry replaces its row."""
KEPT_DAYS = 1


@dataclass(frozen=True)
class JobProgress:
    """The progress of a job in its current stage.

    ``done`` is counted in ``unit``, up to ``total`` if that is known. ``seconds_left`` is the time until the stage
    ends.
    """

    stage: str
    done: int = 0
    total: int | None = None
    unit: str = "images"
    epoch: int | None = None
    epochs: int | None = None
    loss: float | None = None
    images_per_second: float | None = None
    seconds_left: float | None = None

    def describe(self) -> str:
        """Return the progress as one line of text."""
        parts = [self.stage, self.describe_epoch(), self.describe_count(), self.describe_speed()]
        return ", ".join(filter(None, [*parts, self.describe_loss(), self.describe_time_left()]))

    def describe_epoch(self) -> str:
        """Return the epoch as text, empty if there is none."""
        return f"epoch {self.epoch} of {self.epochs}" if self.epoch else ""

    def describe_count(self) -> str:
        """Return the count as text, empty if the stage counts nothing."""
        if self.total is not None:
            return f"{self.done:,} of {self.total:,} {self.unit}"
        return f"{self.done:,} {self.unit}" if self.done else ""

    def describe_speed(self) -> str:
        """Return the speed as text, empty if it is unknown."""
        if self.images_per_second is None:
            return ""
        return f"{self.images_per_second:,.{0 if self.images_per_second >= 10 else 1}f} images/s"

    def describe_loss(self) -> str:
        """Return the loss of the latest batch as text, empty if there is none."""
        return "" if self.loss is None else f"loss {self.loss:.3f}"

    def describe_time_left(self) -> str:
        """Return the time until the stage ends as text, empty if it is unknown."""
        if self.seconds_left is None:
            return ""
        for unit, length in (("h", 3600), ("min", 60)):
            if self.seconds_left >= 2 * length:
                return f"{self.seconds_left / length:.0f} {unit} left"
        return f"{self.seconds_left:.0f} s left"


@dataclass(frozen=True)
class RunningJob:
    """A job that is running or was killed. ``seconds_without_news`` is the time since its last update."""

    run_id: str
    task: str
    progress: JobProgress
    updated_at: datetime
    seconds_running: float
    seconds_without_news: float

    @property
    def title(self) -> str:
        """Return the title of the run for people."""
        return title_run(self.run_id)


def upsert_job_progress(
    connection: Connection, run_id: str, task: str, progress: JobProgress, seconds_running: float
) -> None:
    """Store the progress of a job. Replace what was stored before."""
    connection.execute(
        text("""
            INSERT INTO catalog.job_progress (run_id, task, stage, done, total, unit, epoch, epochs, loss,
                images_per_second, seconds_left, started_at)
            VALUES (:run, :task, :stage, :done, :total, :unit, :epoch, :epochs, :loss,
                :images_per_second, :seconds_left, now() - make_interval(secs => :running))
            ON CONFLICT (run_id, task) DO UPDATE SET
                (stage, done, total, unit, epoch, epochs, loss, images_per_second, seconds_left, started_at,
                    updated_at)
                = ROW (excluded.stage, excluded.done, excluded.total, excluded.unit, excluded.epoch, excluded.epochs,
                    excluded.loss, excluded.images_per_second, excluded.seconds_left, excluded.started_at, now())
        """),
        {**vars(progress), "run": run_id, "task": task, "running": seconds_running},
    )


def delete_job_progress(connection: Connection, run_id: str, task: str) -> None:
    """Delete the row of a job that is ending, and rows of jobs that were killed long ago."""
    connection.execute(
        text("""
            DELETE FROM catalog.job_progress
            WHERE (run_id = :run AND task = :task) OR updated_at < now() - make_interval(days => :days)
        """),
        {"run": run_id, "task": task, "days": KEPT_DAYS},
    )


def list_running_jobs(connection: Connection, run_id: str | None = None) -> tuple[RunningJob, ...]:
    """List all running jobs, oldest first, or only those of a run and its parts (runs with ids below its own)."""
    rows = connection.execute(
        text("""
            SELECT *, extract(epoch FROM now() - started_at)::float AS seconds_running,
                   greatest(extract(epoch FROM now() - updated_at), 0)::float AS seconds_without_news
            FROM catalog.job_progress
            WHERE updated_at > now() - make_interval(hours => :hours)
              AND (CAST(:run AS text) IS NULL OR run_id = :run OR starts_with(run_id, :run || '/'))
            ORDER BY started_at, run_id, task
        """),
        {"run": run_id, "hours": SHOWN_HOURS},
    )
    return tuple(read_records(rows, RunningJob))
