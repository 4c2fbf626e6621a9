"""Report the progress of a job: store it for the pages, and log it at intervals."""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import SupportsFloat, TypeVar

import psycopg2
from sqlalchemy import Engine, exc

from jobs.database.job_progress import JobProgress, delete_job_progress, upsert_job_progress

log = logging.getLogger(__name__)

MIN_REPORT_SECONDS = 0.5
"""Minimum time between two reports of a stage. Reports that come sooner are dropped."""
WRITE_SECONDS = 1.5
LOG_SECONDS = 12.0
CLOSE_SECONDS = 5.0
"""Maximum time that a job waits at its end for the last write."""

_Item = TypeVar("_Item")


class Progress:
    """Keep the latest report of one job. All reports must come from the same thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.latest: JobProgress | None = None
        self._clock = clock
        self._reported = self._stage_started = 0.0
        self._stage_start = 0

    def report(
        self,
        stage: str,
        done: int = 0,
        total: int | None = None,
        unit: str = "images",
        *,
        epoch: int | None = None,
        epochs: int | None = None,
        loss: SupportsFloat | None = None,
    ) -> None:
        """Report the progress of the current stage. Cheap enough to call for each batch."""
        now, before = self._clock(), self.latest
        if before is None or before.stage != stage or done < before.done:
            self._stage_started, self._stage_start = now, done
        elif now - self._reported < MIN_REPORT_SECONDS:
            return
        self._reported = now
        counted, seconds = done - self._stage_start, now - self._stage_started
        speed = counted / seconds if counted and seconds else None
        self.latest = JobProgress(
            stage,
            done,
            total,
            unit,
            epoch,
            epochs,
            None if loss is None else float(loss),
            images_per_second=speed if unit == "images" else None,
            seconds_left=(total - done) / speed if total is not None and speed else None,
        )

    def track(
        self, stage: str, items: Iterable[_Item], total: int, *, size: int = 1, unit: str = "images"
    ) -> Iterator[_Item]:
        """Yield items, and report each as done when the next is requested. An item is a batch of ``size`` units."""
        self.report(stage, 0, total, unit)
        for number, item in enumerate(items, start=1):
            yield item
            self.report(stage, min(number * size, total), total, unit)


SILENT = Progress()
"""Progress that is not stored."""

ShowProgress = Callable[[str, Progress], AbstractContextManager[None]]
DISPLAY: ContextVar[ShowProgress | None] = ContextVar("display", default=None)
"""Shows the progress of a task to the user during a block. None if there is no terminal."""


@contextmanager
def show_progress(task: str) -> Iterator[Progress]:
    """Show the progress of a task on the terminal, if there is one, without storing it."""
    progress = Progress()
    with _display(task, progress):
        yield progress


def _display(task: str, progress: Progress) -> AbstractContextManager[None]:
    display = DISPLAY.get()
    return display(task, progress) if display else nullcontext()


@contextmanager
def open_progress(engine: Engine, run_id: str | None, task: str) -> Iterator[Progress]:
    """Store and show the progress of a task while it runs, under the task's name in the DAG. Without a run, do neither.

    An unavailable database neither ends nor delays the job. Reports are then lost, and this is logged once.
    """
    progress = Progress()
    if run_id is None:
        yield progress
        return
    is_over = threading.Event()
    writer = _Writer(engine, run_id, task, progress, is_logged=DISPLAY.get() is None)
    # A daemon thread, so a hanging database does not keep the process alive.
    thread = threading.Thread(target=writer.write_until, args=(is_over,), name="progress", daemon=True)
    thread.start()
    try:
        with _display(task, progress):
            yield progress
    finally:
        is_over.set()
        thread.join(CLOSE_SECONDS)


class _Writer:
    """Write the latest report every 1.5 s, and delete it at the end."""

    def __init__(self, engine: Engine, run_id: str, task: str, progress: Progress, *, is_logged: bool) -> None:
        self._engine = engine
        self._run_id = run_id
        self._task = task
        self._progress = progress
        self._is_logged = is_logged
        self._started = time.monotonic()
        self._has_failed = False

    def write_until(self, is_over: threading.Event) -> None:
        """Write and log until the job ends."""
        written, logged = None, self._started
        while not is_over.wait(WRITE_SECONDS):
            latest, now = self._progress.latest, time.monotonic()
            if latest is None or latest is written:
                continue
            self._store(latest)
            written = latest
            if self._is_logged and now - logged >= LOG_SECONDS:
                log.info("%s: %s", self._task, latest.describe())
                logged = now
        if written is not None:
            self._store(None)

    def _store(self, progress: JobProgress | None) -> None:
        try:
            with self._engine.begin() as connection:
                if progress is None:
                    delete_job_progress(connection, self._run_id, self._task)
                else:
                    seconds = time.monotonic() - self._started
                    upsert_job_progress(connection, self._run_id, self._task, progress, seconds)
        except (exc.SQLAlchemyError, psycopg2.Error) as error:
            if not self._has_failed:
                reason = str(getattr(error, "orig", error)).strip().partition("\n")[0]
                log.warning("the progress of this job cannot be stored, the job continues: %s", reason)
            self._has_failed = True
