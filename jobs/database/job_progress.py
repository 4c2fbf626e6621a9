"""Queries on ``job_progress``, which holds how far each running job is."""

from dataclasses import asdict, dataclass
from datetime import datetime

from sqlalchemy import Connection, text

SHOWN_HOURS = 1
"""The row of a killed job is shown for this long after its last update, unless a retry replaces it."""
KEPT_DAYS = 1


@dataclass(frozen=True)
class JobProgress:
    """How far a job is in its current stage.

    ``done`` counts ``unit``, up to ``total`` where that is known. ``seconds_left`` is the time until the stage ends.
    """

    stage: str
    done: int = 0
    total: int | None = None
    unit: str = "photos"
    epoch: int | None = None
    epochs: int | None = None
    loss: float | None = None
    images_per_second: float | None = None
    seconds_left: float | None = None

    def describe(self) -> str:
        """Put it into one line."""
        parts = [self.stage, self.describe_epoch(), self.describe_count(), self.describe_speed()]
        return ", ".join(filter(None, [*parts, self.describe_loss(), self.describe_time_left()]))

    def describe_epoch(self) -> str:
        """The epoch, or nothing where there is none."""
        return f"epoch {self.epoch} of {self.epochs}" if self.epoch else ""

    def describe_count(self) -> str:
        """What is done, or nothing in a stage that is not counted."""
        if self.total is not None:
            return f"{self.done:,} of {self.total:,} {self.unit}"
        return f"{self.done:,} {self.unit}" if self.done else ""

    def describe_speed(self) -> str:
        """Photos a second, or nothing where that is not known."""
        if self.images_per_second is None:
            return ""
        return f"{self.images_per_second:,.{0 if self.images_per_second >= 10 else 1}f} photos/s"

    def describe_loss(self) -> str:
        """The loss of the latest batch, or nothing where there is none."""
        return "" if self.loss is None else f"loss {self.loss:.3f}"

    def describe_time_left(self) -> str:
        """The time until the stage ends, or nothing where that is not known."""
        if self.seconds_left is None:
            return ""
        for unit, length in (("h", 3600), ("min", 60)):
            if self.seconds_left >= 2 * length:
                return f"{self.seconds_left / length:.0f} {unit} left"
        return f"{self.seconds_left:.0f} s left"


@dataclass(frozen=True)
class RunningJob:
    """A job that runs, or was killed: then ``seconds_without_news`` grows."""

    run_id: str
    task: str
    progress: JobProgress
    updated_at: datetime
    seconds_running: float
    seconds_without_news: float


def upsert_job_progress(
    connection: Connection, run_id: str, task: str, progress: JobProgress, seconds_running: float
) -> None:
    """Store how far a job is, in place of what was stored before."""
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
        {**asdict(progress), "run": run_id, "task": task, "running": seconds_running},
    )


def delete_job_progress(connection: Connection, run_id: str, task: str) -> None:
    """Remove the row of a job that ends, and those of jobs that were killed long ago."""
    connection.execute(
        text("""
            DELETE FROM catalog.job_progress
            WHERE (run_id = :run AND task = :task) OR updated_at < now() - make_interval(days => :days)
        """),
        {"run": run_id, "task": task, "days": KEPT_DAYS},
    )


def list_running_jobs(connection: Connection, run_id: str | None = None) -> tuple[RunningJob, ...]:
    """All running jobs, or those of one run and of the runs whose ids lie below its own; the oldest first."""
    rows = connection.execute(
        text("""
            SELECT run_id, task, updated_at,
                   extract(epoch FROM now() - started_at)::float AS seconds_running,
                   greatest(extract(epoch FROM now() - updated_at), 0)::float AS seconds_without_news,
                   stage, done, total, unit, epoch, epochs, loss, images_per_second, seconds_left
            FROM catalog.job_progress
            WHERE updated_at > now() - make_interval(hours => :hours)
              AND (CAST(:run AS text) IS NULL OR run_id = :run OR starts_with(run_id, :run || '/'))
            ORDER BY started_at, run_id, task
        """),
        {"run": run_id, "hours": SHOWN_HOURS},
    )
    return tuple(
        RunningJob(
            row.run_id,
            row.task,
            JobProgress(*row[5:]),
            row.updated_at,
            row.seconds_running,
            row.seconds_without_news,
        )
        for row in rows
    )
