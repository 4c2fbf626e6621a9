"""The processes of a local stack: told from all others, and ended.

Each carries the stack's id in its environment, and its children inherit it. So all of them are found, whatever
became of their parents or of the files that tell about them, and a process that got the number of a dead one is
never taken for it.
"""

import hashlib
import os
import signal
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

STACK_ID_VARIABLE = "CATALOG_STACK_ID"
_POLL_SECONDS = 0.05
_KILL_SECONDS = 5.0
_EXEC_SECONDS = 1.0


def identify_stack(folder: Path) -> str:
    """The id of the stack in ``folder``: the same after a restart, and even when the folder was deleted."""
    return f"catalog-{hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:24]}"


def find_stack_processes(stack_id: str) -> list[psutil.Process]:
    """Every living process of the stack, but for the caller and those that started it."""
    callers = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    return [
        process for process in psutil.process_iter() if process.pid not in callers and _is_marked(process, stack_id)
    ]


def find_stack_process(pid: int | None, stack_id: str) -> psutil.Process | None:
    """The process ``pid`` if it lives and is the stack's."""
    if pid is None or not psutil.pid_exists(pid):
        return None
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        # Twice: between the two questions it may have become another program, whose marks were not there yet.
        for _ in range(2):
            deadline = time.monotonic() + _EXEC_SECONDS
            while _is_between_programs(process) and time.monotonic() < deadline:
                time.sleep(_POLL_SECONDS)
            if _is_marked(process, stack_id):
                return process
    return None


def find_strays(stack_id: str, service_pids: Iterable[int]) -> list[psutil.Process]:
    """What a crash left: the stack's processes that do not descend from one of its living services."""
    found = find_stack_processes(stack_id)
    kept = set()
    for pid in service_pids:
        if service := find_stack_process(pid, stack_id):
            kept |= {pid, *(child.pid for child in service.children(recursive=True))}
    return [process for process in found if process.pid not in kept]


def end_processes(processes: Sequence[psutil.Process], request: signal.Signals, patience_seconds: float) -> None:
    """Ask all of them to end, wait, and kill those that did not."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(request)
    survivors = _wait_for_end(processes, patience_seconds)
    for process in survivors:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    _wait_for_end(survivors, _KILL_SECONDS)


def _wait_for_end(processes: Sequence[psutil.Process], patience_seconds: float) -> list[psutil.Process]:
    deadline = time.monotonic() + patience_seconds
    living = [process for process in processes if is_alive(process)]
    while living and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
        living = [process for process in living if is_alive(process)]
    return living


def is_alive(process: psutil.Process) -> bool:
    """Whether it runs; what has ended and waits for its parent to notice does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _is_marked(process: psutil.Process, stack_id: str) -> bool:
    try:
        with suppress(psutil.AccessDenied):
            if process.environ().get(STACK_ID_VARIABLE) == stack_id:
                return True
        # A process of Postgres writes its title over its environment; the title names the cluster, which is our id.
        return process.name() == "postgres" and any(stack_id in word for word in process.cmdline())
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False


def _is_between_programs(process: psutil.Process) -> bool:
    """For a moment, while one program takes the place of another, a process has no environment at all."""
    try:
        return is_alive(process) and not process.environ()
    except psutil.AccessDenied:
        return False
