"""What a job reports of its progress, for tests that look at it."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import Engine

import jobs.progress
from jobs.database.job_progress import JobProgress
from jobs.progress import Progress


class RecordedProgress(Progress):
    """Keeps every report, and the names of the tasks that opened it."""

    def __init__(self) -> None:
        super().__init__()
        self.tasks: list[str] = []
        self.reports: list[JobProgress] = []

    @contextmanager
    def open(self, _: Engine, run_id: str | None, task: str) -> Iterator[Progress]:
        """Stand in for `open_progress`."""
        assert run_id
        self.tasks.append(task)
        yield self

    def report(self, *arguments: object, **options: object) -> None:
        """Keep the report too."""
        super().report(*arguments, **options)  # type: ignore[arg-type]
        assert self.latest is not None
        self.reports.append(self.latest)

    def stages(self) -> list[str]:
        """The stages in their order, each once."""
        return list(dict.fromkeys(report.stage for report in self.reports))

    def of(self, stage: str) -> list[JobProgress]:
        """The reports of a stage."""
        return [report for report in self.reports if report.stage == stage]


def record_progress(monkeypatch: pytest.MonkeyPatch, *modules: str) -> RecordedProgress:
    """Record every report of the jobs in some modules, none of them left out for coming too soon."""
    recorded = RecordedProgress()
    monkeypatch.setattr(jobs.progress, "REPORT_SECONDS", 0.0)
    for module in modules:
        monkeypatch.setattr(f"{module}.open_progress", recorded.open)
    return recorded
