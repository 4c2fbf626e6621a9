"""Show the progress of jobs on a terminal: a bar with the stage, the speed and the time left."""

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from jobs.commands.terminal import HarmlessFormatter
from jobs.database.job_progress import JobProgress
from jobs.progress import Progress

_FIGURES_WIDTH = 46
"""Width of the columns for speed, epoch, loss and time left. Name, count, stage and bar share the rest of the line."""
_COUNT_WIDTH = 28
_MIN_WIDTH_WITH_COUNT = 110
_REFRESHES_PER_SECOND = 4


@dataclass(frozen=True)
class Bar:
    """A running job. ``progress`` is None before its first report. ``seconds`` is the time since it started."""

    name: str
    progress: JobProgress | None
    seconds: float | None


def draw_bars(bars: Iterable[Bar], width: int) -> Table:
    """Draw one line for each job. On a narrow terminal, leave out the counts."""
    bars = list(bars)
    table = Table.grid(padding=(0, 1))
    has_count = width >= _MIN_WIDTH_WITH_COUNT
    name_width = 1 + max((len(bar.name) for bar in bars), default=0)
    rest = max(0, width - name_width - _FIGURES_WIDTH - (_COUNT_WIDTH if has_count else 0))
    bar_width = max(4, min(30, rest // 3))
    table.add_column(no_wrap=True, min_width=name_width)
    table.add_column(width=bar_width)
    table.add_column(no_wrap=True, max_width=max(8, rest - bar_width))
    for _ in range(5 if has_count else 4):
        table.add_column(no_wrap=True)
    for bar in bars:
        table.add_row(*_draw_bar(bar, bar_width, has_count=has_count))
    return table


def _draw_bar(bar: Bar, width: int, *, has_count: bool) -> Iterator[Text | ProgressBar]:
    yield Text(f" {bar.name}", style="bold")
    progress = bar.progress or JobProgress("running")
    yield ProgressBar(progress.total, progress.done, width, pulse=progress.total is None)
    yield Text(progress.stage)
    if has_count:
        yield Text(progress.describe_count())
    yield Text(progress.describe_speed(), style="cyan")
    yield Text(f"epoch {progress.epoch}/{progress.epochs}" if progress.epoch else "")
    yield Text(progress.describe_loss())
    if time_left := progress.describe_time_left():
        yield Text(time_left, style="cyan")
    else:
        yield Text(f"{bar.seconds:.0f} s" if bar.seconds is not None else "", style="dim")


class TerminalProgress(logging.Handler):
    """Shows the jobs of this process as bars on standard error, and log lines above them."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(HarmlessFormatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
        self._console = Console(stderr=True)
        self._jobs: dict[str, tuple[Progress, float]] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Print a log line. A job's report is left out, because a table of it follows."""
        if not getattr(record, "is_report", False):
            self._console.print(Text(self.format(record)), soft_wrap=True)

    @contextmanager
    def show(self, task: str, progress: Progress) -> Iterator[None]:
        """Show the progress of a task during the block, with that of other tasks."""
        self._jobs[task] = (progress, time.monotonic())
        try:
            if len(self._jobs) > 1:
                yield
                return
            with Live(
                console=self._console,
                get_renderable=self._draw,
                refresh_per_second=_REFRESHES_PER_SECOND,
                transient=True,
                redirect_stdout=sys.stdout.isatty(),
            ):
                yield
        finally:
            del self._jobs[task]

    def _draw(self) -> Table:
        now = time.monotonic()
        bars = [Bar(task, progress.latest, now - started) for task, (progress, started) in list(self._jobs.items())]
        return draw_bars(bars, self._console.width)
