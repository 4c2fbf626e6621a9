"""A server of the local stack: started apart from its starter, and waited for until it answers."""

import os
import pwd
import subprocess
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from jobs.errors import PermanentError, RetryableError
from jobs.local.private_files import open_private_log
from jobs.local.processes import STACK_ID_VARIABLE, find_stack_process

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
