"""Start, find and stop the servers of a local stack."""

import hashlib
import os
import pwd
import signal
import subprocess
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from jobs.errors import PermanentError, RetryableError
from jobs.local.private_files import open_private_log

STACK_ID_VARIABLE = "CATALOG_STACK_ID"
_EXIT_POLL_SECONDS = 0.05
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
                time.sleep(_EXIT_POLL_SECONDS)
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
        time.sleep(_EXIT_POLL_SECONDS)
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


_POLL_SECONDS = 0.1
_LOG_LINES_SHOWN = 6


@dataclass(frozen=True)
class Command:
    """A program of the stack with all that it needs to run; without a ``system_user`` it runs as the caller."""

    words: tuple[str, ...]
    environment: Mapping[str, str]
    working_folder: Path
    system_user: pwd.struct_passwd | None = None


@dataclass(frozen=True)
class Service:
    """A server: how to start it and how to tell that it answers.

    ``port`` and ``port_setting`` name what it listens on and the setting that changes that; None for those that
    listen on nothing.
    """

    name: str
    command: Command
    is_ready: Callable[[psutil.Process], bool]
    port: int | None = None
    port_setting: str = ""
    ready_timeout_seconds: float = 180


def start_service(service: Service, stack_id: str, log_path: Path) -> int:
    """Start a server in a session of its own, where no Ctrl-C of a terminal reaches it, and return its pid.

    The log of the run before stays as ``NAME.previous.log``.

    Raises:
        PermanentError: the program is missing or may not be run.
    """
    keep_previous_log(log_path)
    process = open_process(service.command, stack_id, log_path)
    pid = process.pid
    with warnings.catch_warnings():
        # It is meant to outlive its starter; should it end earlier, the standard library still reaps it.
        warnings.simplefilter("ignore", ResourceWarning)
        del process
    return pid


def keep_previous_log(log_path: Path) -> None:
    """Make room for a new log; that of the run before stays as ``NAME.previous.log``."""
    if log_path.exists():
        log_path.replace(log_path.with_suffix(".previous.log"))


def run_command(command: Command, stack_id: str, log_path: Path) -> None:
    """Run a program to its end.

    Raises:
        PermanentError: it is missing or fails; the message ends with the last lines of its log.
    """
    process = open_process(command, stack_id, log_path)
    try:
        exit_code = process.wait()
    except BaseException:
        # Ctrl-C included: the program must not go on behind our back; the exception does.
        process.kill()
        process.wait()
        raise
    if exit_code:
        raise PermanentError(f"{Path(command.words[0]).name} failed with {exit_code}: {quote_log(log_path)}")


def wait_until_ready(service: Service, pid: int, stack_id: str, log_path: Path) -> None:
    """Return once the server answers.

    Raises:
        PermanentError: it ended instead.
        RetryableError: it lives and does not answer in time.
    """
    deadline = time.monotonic() + service.ready_timeout_seconds
    while True:
        process = find_stack_process(pid, stack_id)
        if process is None:
            raise PermanentError(f"{service.name} ended while it started: {quote_log(log_path)}")
        if service.is_ready(process):
            return
        if time.monotonic() > deadline:
            raise RetryableError(
                f"{service.name} did not answer within {service.ready_timeout_seconds:.0f} s: {quote_log(log_path)}"
            )
        time.sleep(_POLL_SECONDS)


def open_process(
    command: Command, stack_id: str, log_path: Path, *, takes_orders: bool = False
) -> "subprocess.Popen[bytes]":
    """Open a process of the stack; one that ``takes_orders`` reads and answers them over pipes.

    Raises:
        PermanentError: the program is missing or may not be run.
    """
    user = command.system_user
    log = open_private_log(log_path)
    try:
        return subprocess.Popen(
            command.words,
            env={**command.environment, STACK_ID_VARIABLE: stack_id},
            cwd=command.working_folder,
            stdin=subprocess.PIPE if takes_orders else subprocess.DEVNULL,
            stdout=subprocess.PIPE if takes_orders else log,
            stderr=log,
            start_new_session=True,
            umask=0o077,
            user=user.pw_uid if user else None,
            group=user.pw_gid if user else None,
            extra_groups=[] if user else None,
        )
    except OSError as error:
        raise PermanentError(f"cannot run {command.words[0]}: {error.strerror}; install requirements.txt") from None
    finally:
        os.close(log)


def quote_log(log_path: Path) -> str:
    """Name a log and quote its end."""
    lines = [line for line in log_path.read_text(errors="replace").splitlines() if line.strip()]
    return "\n  ".join([f"see {log_path}, which ends with", *lines[-_LOG_LINES_SHOWN:]])
