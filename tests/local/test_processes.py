import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psutil
import pytest

from jobs.local.services import (
    STACK_ID_VARIABLE,
    end_processes,
    find_stack_process,
    find_stack_processes,
    find_strays,
    identify_stack,
    is_alive,
)

SLEEP = "import time; time.sleep(600)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); {SLEEP}"
PARENT = "import subprocess, sys, time; print(subprocess.Popen(sys.argv[1:]).pid, flush=True); time.sleep(600)"


@pytest.fixture
def stack_id() -> Iterator[str]:
    stack_id = uuid4().hex
    yield stack_id
    end_processes(find_stack_processes(stack_id), signal.SIGKILL, 5)


def start(stack_id: str, *words: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(words, env={**os.environ, STACK_ID_VARIABLE: stack_id}, stdout=subprocess.PIPE)


def read_line(process: "subprocess.Popen[bytes]") -> bytes:
    assert process.stdout is not None
    with process.stdout:
        return process.stdout.readline()


def test_id_depends_on_the_folder_alone(tmp_path: Path) -> None:
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


def test_process_of_another_stack_is_not_taken_for_ours(stack_id: str) -> None:
    with start(uuid4().hex, sys.executable, "-c", SLEEP) as process:
        assert find_stack_process(process.pid, stack_id) is None

        process.kill()


def test_process_that_ends_on_request_is_not_killed(stack_id: str) -> None:
    with start(stack_id, sys.executable, "-c", SLEEP) as process:
        end_processes([psutil.Process(process.pid)], signal.SIGTERM, 60)

        assert process.wait() == -signal.SIGTERM


def test_process_that_ignores_the_request_is_killed(stack_id: str) -> None:
    with start(stack_id, sys.executable, "-c", STUBBORN) as process:
        read_line(process)
        end_processes([psutil.Process(process.pid)], signal.SIGTERM, 0.2)

        assert process.wait() == -signal.SIGKILL


def test_ended_process_that_nobody_waited_for_is_not_alive(stack_id: str) -> None:
    with start(stack_id, sys.executable, "-c", "pass") as process:
        found = psutil.Process(process.pid)
        while found.status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)

        assert not is_alive(found)
        assert find_stack_process(process.pid, stack_id) is None
