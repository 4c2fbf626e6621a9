"""Jobs in processes of their own, disturbed while they run, and judged by how they end."""

import logging
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import psutil

from benchmarks.scenarios.chaos.ledger import Harm
from fixtures.job_processes import start_job

log = logging.getLogger(__name__)

DEADLINE_SECONDS = 180.0
"""Of a job that takes seconds, on a machine that is busy with others."""
ORPHAN_SECONDS = 15.0
MAX_REPEATS = 5
PAUSE_SECONDS = 2.0
DONE, RETRY, PERMANENT = 0, 75, 78


@dataclass(frozen=True)
class Kill:
    """A signal, so many seconds after the start."""

    after_seconds: float
    signal: signal.Signals


@dataclass(frozen=True)
class Ended:
    """How a job ended: its exit code, minus the signal that ended it, or None if it had to be killed as hung.

    ``orphans`` counts the processes that outlived it.
    """

    words: tuple[str, ...]
    exit_code: int | None
    messages: str
    seconds: float
    was_killed: bool
    orphans: int

    def judge(self, *expected: int) -> Harm:
        """Compare the end with what it should be, and log the job if it is not so."""
        harm = Harm(
            hung=(self.exit_code is None) + self.orphans,
            exit_code=self.exit_code is not None and self.exit_code not in expected,
            message=self.exit_code is not None and not self._says_what_is_wrong(),
        )
        if harm:
            log.warning("%s: %s, exit code %s\n%s", " ".join(self.words), harm, self.exit_code, self.messages[-3000:])
        return harm

    def _says_what_is_wrong(self) -> bool:
        lines = self.messages.splitlines()
        errors = [line for line in lines if line.startswith("error: ")]
        if "Traceback" in self.messages:
            return False
        return self.exit_code not in {RETRY, PERMANENT} or (len(errors) == 1 and lines[-1] == errors[0])


@dataclass(frozen=True)
class JobRunner:
    """Starts jobs with the settings of one shop."""

    environment: dict[str, str]
    folder: Path

    def run(
        self,
        *words: str,
        kill: Kill | None = None,
        disturb: Callable[[psutil.Process], None] | None = None,
        settings: dict[str, str] | None = None,
    ) -> Ended:
        """Run a command to its end; ``disturb`` gets its process once it runs."""
        messages = self.folder / f"messages-{uuid4().hex}"
        started = time.monotonic()
        process = start_job(*words, environment=self.environment | (settings or {}), messages=messages)
        family: set[psutil.Process] = set()
        was_killed = False
        with suppress(psutil.NoSuchProcess):
            # Signals go through psutil, which does not send them to another process that got the same id.
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
        return Ended(
            words,
            None if is_hung else process.exitcode,
            messages.read_text(errors="replace") if messages.exists() else "",
            time.monotonic() - started,
            was_killed,
            _count_orphans(family),
        )

    def run_until_done(self, *words: str) -> Ended:
        """Run a command as often as it asks for that, within reason."""
        for _ in range(MAX_REPEATS):
            ended = self.run(*words)
            if ended.exit_code != RETRY:
                break
            time.sleep(PAUSE_SECONDS)
        return ended


def _list_children(leader: psutil.Process) -> set[psutil.Process]:
    try:
        return set(leader.children(recursive=True))
    except psutil.Error:
        return set()


def _count_orphans(family: set[psutil.Process]) -> int:
    _, alive = psutil.wait_procs(list(family), ORPHAN_SECONDS)
    for process in alive:
        with suppress(psutil.Error):
            log.warning("left behind: %s", process.cmdline())
            process.kill()
    return len(alive)
