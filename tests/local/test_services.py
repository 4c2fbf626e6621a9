import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import psutil
import pytest

from jobs.errors import PermanentError, RetryableError
from jobs.local.services import (
    Command,
    Service,
    end_processes,
    find_stack_process,
    find_stack_processes,
    run_command,
    start_service,
    wait_until_ready,
)


@pytest.fixture
def stack_id() -> Iterator[str]:
    stack_id = uuid4().hex
    yield stack_id
    end_processes(find_stack_processes(stack_id), signal.SIGKILL, 5)


def make_command(folder: Path, script: str) -> Command:
    return Command(("/bin/sh", "-c", script), {"PATH": os.defpath}, folder)


def make_service(folder: Path, script: str) -> Service:
    return Service("keeper", make_command(folder, script), lambda process: process.is_running())


def test_service_runs_in_a_session_of_its_own(tmp_path: Path, stack_id: str) -> None:
    service = make_service(tmp_path, "echo hello; exec sleep 600")
    pid = start_service(service, stack_id, tmp_path / "keeper.log")
    wait_until_ready(service, pid, stack_id, tmp_path / "keeper.log")

    assert os.getsid(pid) == pid
    assert psutil.Process(pid).cwd() == str(tmp_path)
    assert find_stack_process(pid, stack_id)


def test_log_of_the_run_before_is_kept(tmp_path: Path, stack_id: str) -> None:
    log = tmp_path / "keeper.log"
    log.write_text("old news\n")
    start_service(make_service(tmp_path, "exec sleep 600"), stack_id, log)

    assert (tmp_path / "keeper.previous.log").read_text() == "old news\n"
    assert log.stat().st_mode & 0o777 == 0o600


def test_service_that_ends_at_once_is_reported_with_its_last_words(tmp_path: Path, stack_id: str) -> None:
    log = tmp_path / "keeper.log"
    service = replace(make_service(tmp_path, "echo no room left; exit 3"), is_ready=lambda _process: False)
    pid = start_service(service, stack_id, log)

    with pytest.raises(PermanentError, match=rf"keeper ended while it started.*{log}(?s:.*)no room left"):
        wait_until_ready(service, pid, stack_id, log)


def test_service_that_never_answers_is_worth_another_try(tmp_path: Path, stack_id: str) -> None:
    log = tmp_path / "keeper.log"
    service = replace(
        make_service(tmp_path, "exec sleep 600"), is_ready=lambda _process: False, ready_timeout_seconds=0.3
    )
    pid = start_service(service, stack_id, log)

    with pytest.raises(RetryableError, match="keeper did not answer"):
        wait_until_ready(service, pid, stack_id, log)


def test_missing_program_is_named(tmp_path: Path, stack_id: str) -> None:
    command = Command((str(tmp_path / "nowhere"),), {}, tmp_path)

    with pytest.raises(PermanentError, match="nowhere: No such file"):
        run_command(command, stack_id, tmp_path / "nowhere.log")


def test_failed_command_is_reported_with_its_last_words(tmp_path: Path, stack_id: str) -> None:
    with pytest.raises(PermanentError, match=r"sh failed with 4(?s:.*)out of luck"):
        run_command(make_command(tmp_path, "echo out of luck; exit 4"), stack_id, tmp_path / "sh.log")
