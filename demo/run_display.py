"""Display the progress of a run: a live table on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from jobs.commands.progress_bar import Bar, draw_bars
from jobs.database.job_progress import JobProgress

PROGRESS_SECONDS = 10.0
"""Interval between plain lines about a running task."""
_ENDS = frozenset({"success", "failed", "skipped", "up_for_retry"})
_STYLES = {"success": "green", "failed": "red", "up_for_retry": "yellow"}

Write = Callable[[str], None]


@dataclass(frozen=True)
class TaskView:
    """The state of a task in Airflow and the progress of its job. ``seconds`` is the time of its latest attempt."""

    name: str
    state: str | None
    seconds: float | None
    progress: JobProgress | None = None


@dataclass(frozen=True)
class RunView:
    """The tasks of a run. ``others`` are running jobs of other runs."""

    tasks: tuple[TaskView, ...]
    others: tuple[TaskView, ...] = ()

    @property
    def running(self) -> tuple[TaskView, ...]:
        """Return all running tasks."""
        return tuple(task for task in self.tasks if task.state == "running") + self.others


class RunDisplay(Protocol):
    """Shows the progress of a run."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def show(self, view: RunView) -> None:
        """Show the current state of the run."""


def choose_display(write: Write) -> RunDisplay:
    """Return a live table if standard output is a terminal that supports it, otherwise plain lines."""
    console = Console()
    # Rich's check alone is not enough: with FORCE_COLOR it treats a file as a terminal.
    return LiveDisplay(console) if sys.stdout.isatty() and console.is_interactive else PlainDisplay(write)


class PlainDisplay:
    """Writes a line when a task changes state, and one for each running task every ten seconds."""

    def __init__(self, write: Write, progress_seconds: float = PROGRESS_SECONDS) -> None:
        self._write = write
        self._progress_seconds = progress_seconds
        self._changes = _StateChanges()
        self._shown: tuple[TaskView, ...] = ()
        self._shown_at = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def show(self, view: RunView) -> None:
        """Write what has changed."""
        for task in self._changes.take(view):
            self._write(f"   {_describe_state(task)}")
        if time.monotonic() - self._shown_at < self._progress_seconds:
            return
        for task in view.running:
            if task.progress and all(task.progress != before.progress for before in self._shown):
                self._write(f"   {task.name}: {task.progress.describe()}")
        self._shown, self._shown_at = view.running, time.monotonic()


class LiveDisplay:
    """Shows a table of the running tasks, below one line for each task that has ended."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._changes = _StateChanges()

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def show(self, view: RunView) -> None:
        """Print newly ended tasks, and redraw the table."""
        for task in self._changes.take(view):
            if task.state in _ENDS:
                style = _STYLES.get(task.state or "", "")
                self._console.print(Text(f"   {_describe_state(task)}", style=style), soft_wrap=True)
        self._live.update(self._draw(view), refresh=True)

    def _draw(self, view: RunView) -> Table | Text:
        if not view.running:
            waiting = [task.name for task in view.tasks if task.state in {"queued", "scheduled", "up_for_retry"}]
            return Text(f" waiting for {', '.join(waiting) or 'Airflow'}", style="dim")
        bars = [Bar(task.name, task.progress, task.seconds) for task in view.running]
        return draw_bars(bars, self._console.width)


class _StateChanges:
    """Remembers the state of each task to detect changes."""

    def __init__(self) -> None:
        self._known: dict[str, str | None] = {}

    def take(self, view: RunView) -> Iterator[TaskView]:
        for task in view.tasks:
            if (task.state == "running" or task.state in _ENDS) and self._known.get(task.name) != task.state:
                self._known[task.name] = task.state
                yield task


def _describe_state(task: TaskView) -> str:
    seconds = f", {task.seconds:.0f} s" if task.seconds is not None and task.state in {"success", "failed"} else ""
    return f"{task.name}: {task.state}{seconds}"
