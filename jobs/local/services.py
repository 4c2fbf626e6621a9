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

from jobs.errors import ConfigurationError, RetryableError

STACK_ID_VARIABLE = "CATALOG_STACK_ID"
_EXIT_POLL_SECONDS = 0.05
_KILL_TIMEOUT_SECONDS = 5.0
_EXEC_TIMEOUT_SECONDS = 1.0
_READY_POLL_SECONDS = 0.1
_LOG_LINES_SHOWN = 6


@dataclass(frozen=True)
class Command:
    """A program of the stack. Without a ``system_user`` it runs as the caller."""

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    working_folder: Path
    system_user: pwd.struct_passwd | None = None


@dataclass(frozen=True)
class Service:
    """A server: how to start it and how to check that it is ready.

    ``port`` is None if it does not listen on a port; ``port_setting`` is the name of the setting for the port.
    """

    name: str
    command: Command
    is_ready: Callable[[psutil.Process], bool]
    port: int | None = None
    port_setting: str = ""
    ready_timeout_seconds: float = 180


def identify_stack(folder: Path) -> str:
    """Return the id of the stack in ``folder``. It depends only on the path, so it survives the folder's deletion."""
    return f"catalog-{hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:24]}"


def find_stack_processes(stack_id: str) -> list[psutil.Process]:
    """Return every living process of the stack, except the caller and its ancestors."""
    callers = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    return [
        process for process in psutil.process_iter() if process.pid not in callers and _is_marked(process, stack_id)
    ]


def find_stack_process(pid: int | None, stack_id: str) -> psutil.Process | None:
    """Return the process ``pid`` if it is alive and belongs to the stack."""
    if pid is None or not psutil.pid_exists(pid):
        return None
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        # Check twice: the process may call exec just after the wait, and its new environment is not visible at once.
        for _ in range(2):
            deadline = time.monotonic() + _EXEC_TIMEOUT_SECONDS
            while _is_in_exec(process) and time.monotonic() < deadline:
                time.sleep(_EXIT_POLL_SECONDS)
            if _is_marked(process, stack_id):
                return process
    return None


def find_strays(stack_id: str, service_pids: Iterable[int]) -> list[psutil.Process]:
    """Return the stack's processes without a running service as ancestor, such as those left by a crash."""
    found = find_stack_processes(stack_id)
    kept = set()
    for pid in service_pids:
        if service := find_stack_process(pid, stack_id):
            kept |= {pid, *(child.pid for child in service.children(recursive=True))}
    return [process for process in found if process.pid not in kept]


def stop_processes(processes: Sequence[psutil.Process], stop_signal: signal.Signals, timeout_seconds: float) -> None:
    """Send ``stop_signal`` to all processes, wait, and kill those that are still running."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(stop_signal)
    survivors = _wait_for_end(processes, timeout_seconds)
    for process in survivors:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    _wait_for_end(survivors, _KILL_TIMEOUT_SECONDS)


def _wait_for_end(processes: Sequence[psutil.Process], timeout_seconds: float) -> list[psutil.Process]:
    deadline = time.monotonic() + timeout_seconds
    living = [process for process in processes if is_alive(process)]
    while living and time.monotonic() < deadline:
        time.sleep(_EXIT_POLL_SECONDS)
        living = [process for process in living if is_alive(process)]
    return living


def is_alive(process: psutil.Process) -> bool:
    """Tell whether a process is running. A zombie is not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _is_marked(process: psutil.Process, stack_id: str) -> bool:
    try:
        with suppress(psutil.AccessDenied):
            if process.environ().get(STACK_ID_VARIABLE) == stack_id:
                return True
        # Postgres overwrites its environment with its title. That contains the cluster name, which is the stack id.
        return process.name() == "postgres" and any(stack_id in word for word in process.cmdline())
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False


def _is_in_exec(process: psutil.Process) -> bool:
    """Tell whether a process is in the middle of exec, when its environment is empty for a moment."""
    try:
        return is_alive(process) and not process.environ()
    except psutil.AccessDenied:
        return False


def start_service(service: Service, stack_id: str, log_path: Path) -> int:
    """Start a server in its own session, out of reach of the terminal's Ctrl-C, and return its pid.

    Raises:
        ConfigurationError: the program is missing or may not be run.
    """
    keep_previous_log(log_path)
    process = open_process(service.command, stack_id, log_path)
    pid = process.pid
    with warnings.catch_warnings():
        # The server outlives this process, so suppress the warning that it is still running. If it ends earlier, the
        # standard library reaps it.
        warnings.simplefilter("ignore", ResourceWarning)
        del process
    return pid


def keep_previous_log(log_path: Path) -> None:
    """Rename the log of the last start to ``NAME.previous.log``."""
    if log_path.exists():
        log_path.replace(log_path.with_suffix(".previous.log"))


def run_command(command: Command, stack_id: str, log_path: Path) -> None:
    """Run a program and wait until it ends.

    Raises:
        ConfigurationError: the program is missing or fails; the message ends with the last lines of its log.
    """
    process = open_process(command, stack_id, log_path)
    try:
        exit_code = process.wait()
    except BaseException:
        # Also on KeyboardInterrupt: the program has its own session, so Ctrl-C does not reach it.
        process.kill()
        process.wait()
        raise
    if exit_code:
        raise ConfigurationError(f"{Path(command.argv[0]).name} failed with {exit_code}: {quote_log(log_path)}")


def wait_until_ready(service: Service, pid: int, stack_id: str, log_path: Path) -> None:
    """Wait until the server is ready.

    Raises:
        ConfigurationError: the server ended.
        RetryableError: the server is running but was not ready in time.
    """
    deadline = time.monotonic() + service.ready_timeout_seconds
    while True:
        process = find_stack_process(pid, stack_id)
        if process is None:
            raise ConfigurationError(f"{service.name} ended while it started: {quote_log(log_path)}")
        if service.is_ready(process):
            return
        if time.monotonic() > deadline:
            raise RetryableError(
                f"{service.name} was not ready after {service.ready_timeout_seconds:.0f} s: {quote_log(log_path)}"
            )
        time.sleep(_READY_POLL_SECONDS)


def open_process(
    command: Command, stack_id: str, log_path: Path, *, uses_pipes: bool = False
) -> "subprocess.Popen[bytes]":
    """Start a process of the stack. With ``uses_pipes``, its standard input and output are pipes to the caller.

    Raises:
        ConfigurationError: the program is missing or may not be run.
    """
    user = command.system_user
    log = open_private_log(log_path)
    try:
        return subprocess.Popen(
            command.argv,
            env={**command.environment, STACK_ID_VARIABLE: stack_id},
            cwd=command.working_folder,
            stdin=subprocess.PIPE if uses_pipes else subprocess.DEVNULL,
            stdout=subprocess.PIPE if uses_pipes else log,
            stderr=log,
            start_new_session=True,
            umask=0o077,
            user=user.pw_uid if user else None,
            group=user.pw_gid if user else None,
            extra_groups=[] if user else None,
        )
    except OSError as error:
        raise ConfigurationError(f"cannot run {command.argv[0]}: {error.strerror}; install requirements.txt") from None
    finally:
        os.close(log)


def open_private_log(path: Path) -> int:
    """Return a descriptor that appends to ``path``, which only its owner can read; the caller closes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def quote_log(log_path: Path) -> str:
    """Return the path of a log and its last lines, for an error message."""
    lines = [line for line in log_path.read_text(errors="replace").splitlines() if line.strip()]
    return "\n  ".join([f"see {log_path}, which ends with", *lines[-_LOG_LINES_SHOWN:]])
