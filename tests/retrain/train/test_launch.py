"""Launch processes that train together."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from jobs.errors import RetryableError, TerminatedError
from jobs.settings import PROJECT_ROOT

COMMAND = """
import os, signal, sys
from jobs.errors import JobError
from jobs.retrain.train.launch import launch
before = signal.getsignal(signal.SIGTERM), dict(os.environ)
try:
    launch(sys.argv[1:], 2)
except JobError as error:
    assert (signal.getsignal(signal.SIGTERM), dict(os.environ)) == before
    print(f"error: {error}")
    sys.exit(error.exit_code)
"""
PROCESS = """
import os, sys, time
from pathlib import Path
from jobs.errors import JobError, RetryableError
from jobs.retrain.train.launch import run_as_launched
try:
    with run_as_launched():
        Path(sys.argv[1], os.environ["RANK"]).touch()
        if sys.argv[2] == "fail":
            raise RetryableError("another process is training")
        time.sleep(600)
except JobError as error:
    sys.exit(error.exit_code)
"""


def start(folder: Path, act: str) -> subprocess.Popen[str]:
    """Start a command with two processes, which first write a file each."""
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, "-c", PROCESS, str(folder), act],
        cwd=PROJECT_ROOT,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_an_error_of_a_process_is_that_of_the_command(tmp_path: Path) -> None:
    process = start(tmp_path, "fail")
    output, _ = process.communicate(timeout=120)
    assert process.returncode == RetryableError.exit_code, output
    assert output.splitlines()[-1] == "error: another process is training"


@pytest.mark.parametrize(
    ("number", "exit_code"), [(signal.SIGTERM, TerminatedError.exit_code), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_a_signal_stops_all_processes(number: signal.Signals, exit_code: int, tmp_path: Path) -> None:
    process = start(tmp_path, "train")
    deadline = time.monotonic() + 120
    while process.poll() is None and len(list(tmp_path.iterdir())) < 2:
        assert time.monotonic() < deadline, "the processes did not start"
        time.sleep(0.05)
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) == 2
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == exit_code, output[-3000:]
    if number == signal.SIGTERM:
        assert output.splitlines()[-1].startswith("error: SIGTERM stopped the training")
    assert psutil.wait_procs(children, timeout=10)[1] == []
