"""Run jobs in separate processes, disturb them, and check how they end."""

import logging
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import psutil

from benchmarks.scenarios.chaos.tally import Violations
from fixtures.job_processes import start_job

log = logging.getLogger(__name__)

DEADLINE_SECONDS = 180.0
"""Ample, even on a busy machine, for jobs that take seconds."""
ORPHAN_SECONDS = 15.0
MAX_REPEATS = 5
PAUSE_SECONDS = 2.0
DONE, RETRY, PERMANENT = 0, 75, 78


@dataclass(frozen=True)
class Kill:
    """A signal, and when to send it: seconds after the start of the job."""

    after_seconds: float
    signal: signal.Signals


@dataclass(frozen=True)
class FinishedJob:
    """A finished job. ``exit_code`` is negative if a signal ended the job, and None if the job hung.

    ``orphans`` is the number of child processes that outlived it.
    """

    words: tuple[str, ...]
    exit_code: int | None
    messages: str
    seconds: float
    was_killed: bool
    orphans: int

    def check(self, *expected: int) -> Violations:
        """Check the exit code and the messages. Log the job if they are not as expected."""
        violations = Violations(
            hung=(self.exit_code is None) + self.orphans,
            exit_code=self.exit_code is not None and self.exit_code not in expected,
            message=self.exit_code is not None and not self._has_clear_message(),
        )
        if violations:
            log.warning(
                "%s: %s, exit code %s\n%s", " ".join(self.words), violations, self.exit_code, self.messages[-3000:]
            )
        return violations

    def _has_clear_message(self) -> bool:
        lines = self.messages.splitlines()
        errors = [line for line in lines if line.startswith("error: ")]
        if "Traceback" in self.messages:
            return False
        return self.exit_code not in {RETRY, PERMANENT} or (len(errors) == 1 and lines[-1] == errors[0])


@dataclass(frozen=True)
class JobRunner:
    """Runs jobs with the settings of one shop."""

    environment: dict[str, str]
    folder: Path

    def run(
        self,
        *words: str,
        kill: Kill | None = None,
        disturb: Callable[[psutil.Process], None] | None = None,
        settings: dict[str, str] | None = None,
    ) -> FinishedJob:
        """Run a command and wait until it ends. Call ``disturb`` with its process after the start."""
        messages = self.folder / f"messages-{uuid4().hex}"
        started = time.monotonic()
        process = start_job(*words, environment=self.environment | (settings or {}), messages=messages)
        family: set[psutil.Process] = set()
        was_killed = False
        with suppress(psutil.NoSuchProcess):
            # If the id is reused by another process, psutil does not send signals to it.
            leader = psutil.Process(process.pid)
            if disturb:
                disturb(leader)
            process.join(kill.after_seconds if kill else DEADLINE_SECONDS)
            family |= _list_children(leader)
            if kill and process.is_alive():
                leader.send_signal(kill.signal)
                was_killed = True
        process.join(DEADLINE_SECONDS)
        is_hung = process.is_alive()
        if is_hung:
            process.kill()
            process.join()
        return FinishedJob(
            words,
            None if is_hung else process.exitcode,
            messages.read_text(errors="replace") if messages.exists() else "",
            time.monotonic() - started,
            was_killed,
            _count_orphans(family),
        )

    def run_until_done(self, *words: str) -> FinishedJob:
        """Run a command until it ends with an exit code other than `RETRY`, at most `MAX_REPEATS` times."""
        for _ in range(MAX_REPEATS):
            finished = self.run(*words)
            if finished.exit_code != RETRY:
                break
            time.sleep(PAUSE_SECONDS)
        return finished


def _list_children(leader: psutil.Process) -> set[psutil.Process]:
    try:
        return set(leader.children(recursive=True))
    except psutil.Error:
        return set()


def _count_orphans(family: set[psutil.Process]) -> int:
    _, alive = psutil.wait_procs(list(family), ORPHAN_SECONDS)
    for process in alive:
        with suppress(psutil.Error):
            log.warning("orphan: %s", process.cmdline())
            process.kill()
    return len(alive)
