import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import psutil
import pytest

from jobs.errors import PermanentError, RetryableError
from jobs.local.services import (
    STACK_ID_VARIABLE,
    Command,
    Service,
    find_stack_process,
    find_stack_processes,
    find_strays,
    identify_stack,
    is_alive,
    run_command,
    start_service,
    stop_processes,
    wait_until_ready,
)

SLEEP = "import time; time.sleep(600)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); {SLEEP}"
PARENT = "import subprocess, sys, time; print(subprocess.Popen(sys.argv[1:]).pid, flush=True); time.sleep(600)"


@pytest.fixture
def stack_id() -> Iterator[str]:
    stack_id = uuid4().hex
    yield stack_id
    stop_processes(find_stack_processes(stack_id), signal.SIGKILL, 5)


def make_command(folder: Path, script: str) -> Command:
    return Command(("/bin/sh", "-c", script), {"PATH": os.defpath}, folder)


def make_service(folder: Path, script: str) -> Service:
    return Service("keeper", make_command(folder, script), lambda process: process.is_running())


def test_service_runs_in_its_own_session(tmp_path: Path, stack_id: str) -> None:
    service = make_service(tmp_path, "echo hello; exec sleep 600")
    pid = start_service(service, stack_id, tmp_path / "keeper.log")
    wait_until_ready(service, pid, stack_id, tmp_path / "keeper.log")

    assert os.getsid(pid) == pid
    assert psutil.Process(pid).cwd() == str(tmp_path)
    assert find_stack_process(pid, stack_id)


def test_log_of_the_previous_start_is_kept(tmp_path: Path, stack_id: str) -> None:
    log = tmp_path / "keeper.log"
    log.write_text("old news\n")
    start_service(make_service(tmp_path, "exec sleep 600"), stack_id, log)

    assert (tmp_path / "keeper.previous.log").read_text() == "old news\n"
    assert log.stat().st_mode & 0o777 == 0o600


def test_service_that_ends_at_once_is_reported_with_its_last_log_lines(tmp_path: Path, stack_id: str) -> None:
    log = tmp_path / "keeper.log"
    service = replace(make_service(tmp_path, "echo no room left; exit 3"), is_ready=lambda _process: False)
    pid = start_service(service, stack_id, log)

    with pytest.raises(PermanentError, match=rf"keeper ended while it started.*{log}(?s:.*)no room left"):
        wait_until_ready(service, pid, stack_id, log)


def test_service_that_never_becomes_ready_is_retryable(tmp_path: Path, stack_id: str) -> None:
    log = tmp_path / "keeper.log"
    service = replace(
        make_service(tmp_path, "exec sleep 600"), is_ready=lambda _process: False, ready_timeout_seconds=0.3
    )
    pid = start_service(service, stack_id, log)

    with pytest.raises(RetryableError, match="keeper was not ready"):
        wait_until_ready(service, pid, stack_id, log)


def test_missing_program_is_reported(tmp_path: Path, stack_id: str) -> None:
    command = Command((str(tmp_path / "nowhere"),), {}, tmp_path)

    with pytest.raises(PermanentError, match="nowhere: No such file"):
        run_command(command, stack_id, tmp_path / "nowhere.log")


def test_failed_command_is_reported_with_its_last_log_lines(tmp_path: Path, stack_id: str) -> None:
    with pytest.raises(PermanentError, match=r"sh failed with 4(?s:.*)out of luck"):
        run_command(make_command(tmp_path, "echo out of luck; exit 4"), stack_id, tmp_path / "sh.log")


def start(stack_id: str, *words: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(words, env={**os.environ, STACK_ID_VARIABLE: stack_id}, stdout=subprocess.PIPE)


def read_line(process: "subprocess.Popen[bytes]") -> bytes:
    assert process.stdout is not None
    with process.stdout:
        return process.stdout.readline()


def test_id_depends_only_on_the_folder(tmp_path: Path) -> None:
    assert identify_stack(tmp_path / "a") == identify_stack(tmp_path / "b" / ".." / "a")
    assert identify_stack(tmp_path / "a") != identify_stack(tmp_path / "b")


def test_children_are_found_with_their_parents(stack_id: str) -> None:
    with start(stack_id, sys.executable, "-c", PARENT, sys.executable, "-c", SLEEP) as parent:
        child = int(read_line(parent))

        assert {process.pid for process in find_stack_processes(stack_id)} == {parent.pid, child}
        assert find_stack_processes(uuid4().hex) == []
        assert find_strays(stack_id, [parent.pid]) == []

        parent.kill()

    assert [process.pid for process in find_strays(stack_id, [parent.pid])] == [child]


def test_process_of_another_stack_is_not_found(stack_id: str) -> None:
    with start(uuid4().hex, sys.executable, "-c", SLEEP) as process:
        assert find_stack_process(process.pid, stack_id) is None

        process.kill()


def test_process_that_obeys_the_signal_is_not_killed(stack_id: str) -> None:
    with start(stack_id, sys.executable, "-c", SLEEP) as process:
        stop_processes([psutil.Process(process.pid)], signal.SIGTERM, 60)

        assert process.wait() == -signal.SIGTERM


def test_process_that_ignores_the_signal_is_killed(stack_id: str) -> None:
    with start(stack_id, sys.executable, "-c", STUBBORN) as process:
        read_line(process)
        stop_processes([psutil.Process(process.pid)], signal.SIGTERM, 0.2)

        assert process.wait() == -signal.SIGKILL


def test_zombie_is_not_alive(stack_id: str) -> None:
    with start(stack_id, sys.executable, "-c", "pass") as process:
        found = psutil.Process(process.pid)
        while found.status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)

        assert not is_alive(found)
        assert find_stack_process(process.pid, stack_id) is None
