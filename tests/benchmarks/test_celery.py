"""The benchmark of Celery workers counts redone work, and leaves no machine behind.

The scenario itself takes minutes, so it runs by command: `python -m benchmarks.scenarios.celery`.
"""

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from benchmarks.scenarios.celery.hub import read_compose_settings
from benchmarks.scenarios.celery.ledger import Event, Redone, count_redone, read_access_log
from benchmarks.scenarios.celery.network import find_missing_tools

MACHINES = """
import sys, time
from pathlib import Path
from benchmarks.scenarios.celery.network import open_network

with open_network(Path(sys.argv[1])) as network:
    machines = [network.add_machine("test"), network.add_machine("test")]
    (machines[1].folder / "secret").touch()
    script = "hostname; ls $1; ls $2; sleep 600"
    folders = [str(machine.folder) for machine in machines]
    machines[0].start(["sh", "-c", script, "sh", folders[0], folders[1]], {"PATH": "/usr/bin:/bin", "NAME": "asleep"})
    print("ready", flush=True)
    time.sleep(600)
"""


def test_a_chunk_is_redone_if_all_of_it_was_read_before_the_event() -> None:
    chunks = {"a": (0, 0), "b": (0, 0), "c": (0, 1), "d": (0, 1), "e": (1, 0)}
    events = [Event("kill", 10, frozenset({0})), Event("cut", 20, frozenset({0, 1}))]
    first = [(1.0, "a"), (2.0, "b"), (3.0, "c"), (4.0, "e"), (5.0, "not an image")]
    # After the kill: all of the first chunk, and a part of the second that had been read ahead.
    again = [(11.0, "a"), (12.0, "b"), (13.0, "c"), (14.0, "d"), (15.0, "e"), (21.0, "d"), (22.0, "not an image")]
    assert count_redone([*again, *first], chunks, events) == {
        "": Redone(images=1, chunks=1),
        "kill": Redone(images=3, chunks=1),
        "cut": Redone(images=1, chunks=0),
    }


def test_the_access_log_lists_reads_of_images(tmp_path: Path) -> None:
    log = tmp_path / "s3.log"
    log.write_text(
        "2026/11/28 15:17:30.567272 DEBUG : serve s3: GET OBJECT Bucket: images Object: p1_1.jpg\n"
        "2026/11/28 15:17:30.567380 DEBUG : images/p1_1.jpg: Open: flags=O_RDONLY\n"
        "2026/11/28 15:17:31.000000 DEBUG : serve s3: GET OBJECT Bucket: artifacts Object: p1_1.jpg\n"
    )
    ((at, key),) = read_access_log(log)
    assert at == pytest.approx(1795879050.567272)
    assert key == "p1_1.jpg"


def test_airflow_has_the_settings_of_compose_about_lost_workers() -> None:
    settings = read_compose_settings()
    assert settings["AIRFLOW__CORE__EXECUTOR"] == "CeleryExecutor"
    # A task tries to reach the API server in time to be known as alive after a network failure of a minute.
    longest_wait = 60 + float(settings["AIRFLOW__WORKERS__EXECUTION_API_RETRY_WAIT_MAX"]) + 5
    assert longest_wait < float(settings["AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT"])


@pytest.mark.skipif(bool(find_missing_tools()), reason=find_missing_tools() or "")
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_machines_share_no_folder_and_end_with_their_network(tmp_path: Path, end: signal.Signals) -> None:
    network = subprocess.Popen(
        ["unshare", "--net", "--mount", sys.executable, "-c", MACHINES, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        # As under `supervise`, where signals of the terminal reach only the benchmark itself.
        start_new_session=True,
    )
    sleeper = None
    try:
        assert network.stdout
        assert network.stdout.readline() == "ready\n"
        sleeper = find_sleeper()
        output = (tmp_path / "test-1" / "output.log").read_text()
        assert output.startswith("test-1\n")
        assert "secret" not in output
        assert "No such file" in output
        network.send_signal(end)
        network.wait(30)
        assert end == signal.SIGKILL or not sleeper.is_running()
        assert not Path("/run/netns/test-1").exists()
        assert not Path("/sys/class/net/to-test-1").exists()
    finally:
        network.kill()
        if sleeper and sleeper.is_running():
            sleeper.kill()
        network.communicate()


def find_sleeper() -> psutil.Process:
    """Wait for the process on the first machine."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        for process in psutil.process_iter(["name"]):
            if process.info["name"] == "sleep" and process.environ().get("NAME") == "asleep":
                return process
        time.sleep(0.05)
    raise TimeoutError("no process on the machine")
