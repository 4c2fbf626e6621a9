"""Tests and benchmarks end whatever they started, however they end themselves: by SIGTERM, by a timeout, by a crash."""

import ctypes
import os
import signal
from types import FrameType

import psutil

from jobs.local.processes import end_processes

PATIENCE_SECONDS = 30.0
"""For fixtures and ``finally`` blocks of a process that was told to end."""

SUPERVISED_VARIABLE = "TESTS_ARE_SUPERVISED"
"""Set for the child and what it starts, among which are the workers of xdist and parts of benchmarks.

No setting of ours, since `tests.bare_environment` hides those from the workers.
"""

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def supervise() -> None:
    """Go on in a child process, and stay as its supervisor, which ends when the child and all its descendants have.

    Servers leave the process that started them for a session of their own. As a subreaper the supervisor becomes the
    parent of those whose parent has ended, so that it finds them all, whatever environment they have.
    """
    if SUPERVISED_VARIABLE in os.environ:
        return
    os.environ[SUPERVISED_VARIABLE] = "1"
    supervisor = os.getpid()
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    child = os.fork()
    if child:
        _watch(child)
    # What a shell starts in the background ignores it, and so would the tests, which end by it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Only SIGKILL ends the supervisor first. Then the child cleans up by itself.
    _prctl(_PR_SET_PDEATHSIG, signal.SIGINT)
    if os.getppid() != supervisor:
        os.kill(os.getpid(), signal.SIGINT)


def _watch(child: int) -> None:
    """Wait for the child, then end its descendants; never return."""

    def end_child(number: int, _frame: FrameType | None) -> None:
        # As Ctrl-C does, so that fixtures and `finally` blocks run.
        os.kill(child, signal.SIGINT)
        signal.signal(signal.SIGALRM, lambda *_: os.kill(child, signal.SIGKILL))
        signal.alarm(int(PATIENCE_SECONDS))

    signal.signal(signal.SIGTERM, end_child)
    signal.signal(signal.SIGHUP, end_child)
    # A terminal sends it to the child as well.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    status = _reap_until(child)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for request in (signal.SIGTERM, signal.SIGKILL):
        end_processes(psutil.Process().children(recursive=True), request, 5)
    code = os.waitstatus_to_exitcode(status)
    os._exit(code if code >= 0 else 128 - code)


def _reap_until(child: int) -> int:
    """Reap what became a child of this process until the one ends that matters; return its status."""
    while True:
        pid, status = os.wait()
        if pid == child:
            return status


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl failed")
