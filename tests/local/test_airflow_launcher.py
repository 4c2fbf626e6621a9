"""Test the launcher with a small program instead of Airflow; `tests/end_to_end` uses the real one."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psutil
import pytest
from catalog_airflow.launcher import SHARED

from jobs.errors import PermanentError
from jobs.local.airflow_services import AirflowLauncher
from jobs.local.services import Command, Service, find_stack_process, find_stack_processes, stop_processes

MAIN = """
import os, sys, time

IMPORTED_BY = os.getpid()

def main():
    print(sys.argv, sys.stdin.read() == "", os.getpid() != IMPORTED_BY, flush=True)
    if sys.argv[1] == "fail":
        return "out of luck"
    if sys.argv[1] == "serve":
        time.sleep(600)
"""


@pytest.fixture
def stack_id() -> Iterator[str]:
    stack_id = uuid4().hex
    yield stack_id
    stop_processes(find_stack_processes(stack_id), signal.SIGKILL, 5)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Return a folder with a package named like Airflow."""
    for name in SHARED:
        module = tmp_path.joinpath("site", *name.split(".")).with_suffix(".py")
        module.parent.mkdir(parents=True, exist_ok=True)
        module.touch()
    (tmp_path / "site" / "airflow" / "__main__.py").write_text(MAIN)
    (tmp_path / "site" / "airflow" / "__init__.py").write_text("print('output of its import')\n")
    return tmp_path / "site"


@pytest.fixture
def launcher(site: Path, stack_id: str, tmp_path: Path) -> Iterator[AirflowLauncher]:
    with AirflowLauncher(make_environment(site), stack_id, tmp_path / "launcher.log") as launcher:
        yield launcher


def make_environment(site: Path) -> dict[str, str]:
    """Keep process titles from overwriting the environment, as the stack does."""
    return {"PYTHONPATH": str(site), "SPT_NOENV": "1"}


def make_command(*args: str) -> Command:
    return Command(("airflow", *args), {}, Path())


def test_server_runs_in_its_own_session_and_outlives_the_launcher(site: Path, stack_id: str, tmp_path: Path) -> None:
    service, log = Service("server", make_command("serve"), lambda _process: True), tmp_path / "server.log"
    log.write_text("old news\n")
    with AirflowLauncher(make_environment(site), stack_id, tmp_path / "launcher.log") as launcher:
        pid = launcher.start_service(service, stack_id, log)
    process = find_stack_process(pid, stack_id)

    assert process is not None
    deadline = time.monotonic() + 60
    while (output := log.read_text()) != "['airflow', 'serve'] True True\n":
        assert time.monotonic() < deadline, output
        time.sleep(0.05)
    assert os.getsid(pid) == pid
    assert process.cmdline()[0].startswith("airflow serve")
    assert (tmp_path / "server.previous.log").read_text() == "old news\n"
    assert log.stat().st_mode & 0o777 == 0o600
    assert find_stack_processes(stack_id) == [psutil.Process(pid)]


def test_command_runs_to_its_end(launcher: AirflowLauncher, tmp_path: Path) -> None:
    launcher.run_command(make_command("migrate"), tmp_path / "migrate.log")

    assert (tmp_path / "migrate.log").read_text() == "['airflow', 'migrate'] True True\n"


def test_failed_command_is_reported_with_its_last_log_lines(launcher: AirflowLauncher, tmp_path: Path) -> None:
    with pytest.raises(PermanentError, match=r"airflow fail failed with 1(?s:.*)out of luck"):
        launcher.run_command(make_command("fail"), tmp_path / "fail.log")


def test_airflow_that_cannot_be_imported_is_reported(site: Path, launcher: AirflowLauncher, tmp_path: Path) -> None:
    (site / "airflow" / "__init__.py").write_text("raise ImportError('half an installation')\n")
    with (
        AirflowLauncher(make_environment(site), uuid4().hex, tmp_path / "other.log") as other,
        pytest.raises(PermanentError, match=r"Airflow cannot be started(?s:.*)half an installation"),
    ):
        other.run_command(make_command("migrate"), tmp_path / "migrate.log")
