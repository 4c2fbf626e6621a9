"""What the check of the Compose file reads from the runbook, and what it does without a Docker engine."""

import os
import subprocess
import sys
from pathlib import Path

from benchmarks.scenarios.compose.runbook import read_commands
from jobs.settings import PROJECT_ROOT

RUN = "docker compose run --rm --no-deps"


def test_it_follows_the_commands_of_the_runbook() -> None:
    up, ps, labels, bases, plan = read_commands("First start of a deployment")
    assert (up, ps) == ("docker compose up --detach --build", "docker compose ps --all")
    assert labels.splitlines()[-1] == f"{RUN} airflow-worker catalog retrain"
    assert bases.startswith(f'{RUN} --volume "$PWD/bases:/bases:ro"')
    assert plan == f"{RUN} airflow-worker catalog ingest --plan"

    back_up, restore = read_commands("Back up and restore")[:2]
    assert back_up.count("pg_dump") == 2
    assert restore.startswith("docker compose --profile gpu down\n")
    assert restore.endswith("\ndocker compose up --detach")

    assert read_commands("Upgrade")[:2] == [
        "docker compose --profile gpu stop airflow-worker airflow-worker-gpu",
        "docker compose up --detach --build",
    ]


def test_without_an_engine_it_is_skipped(tmp_path: Path) -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "benchmarks.scenarios.compose"],
        cwd=PROJECT_ROOT,
        env={**os.environ, "DOCKER_HOST": f"unix://{tmp_path}/docker.sock"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    reason, *others = finished.stdout.splitlines()
    assert reason.startswith("compose-check skipped: ")
    assert not others
