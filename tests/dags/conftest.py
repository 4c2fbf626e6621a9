"""The DAGs as Airflow parses them, once for all tests."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jobs.settings import PROJECT_ROOT


def parse_dags(folder: Path, airflow_home: Path, variables: dict[str, str]) -> dict[str, Any]:
    """Parse a folder of DAGs in a fresh process with these variables, and the plugins on its path."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    finished = subprocess.run(
        [sys.executable, Path(__file__).with_name("describe_dags.py"), folder],
        env=inherited | variables | {"AIRFLOW_HOME": str(airflow_home), "PYTHONPATH": str(PROJECT_ROOT / "plugins")},
        cwd=airflow_home,
        capture_output=True,
        text=True,
        timeout=200,
        check=True,
    )
    parsed: dict[str, Any] = json.loads(finished.stdout.splitlines()[-1])
    return parsed


@pytest.fixture(scope="session")
def parsed(tmp_path_factory: pytest.TempPathFactory, process_coverage: dict[str, str]) -> dict[str, Any]:
    return parse_dags(PROJECT_ROOT / "dags", tmp_path_factory.mktemp("airflow"), process_coverage)
