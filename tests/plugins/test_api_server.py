"""The plugin adds little memory to the API server that loads it: Airflow's own application in fresh processes."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from jobs.settings import PROJECT_ROOT

PLUGINS = PROJECT_ROOT / "plugins"
MAX_GROWTH_MIB = 50
START = """
import json, sys, warnings
from pathlib import Path
warnings.simplefilter("ignore")

def read_mib():
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024

from fastapi.testclient import TestClient
from airflow.api_fastapi.app import create_app
app = create_app(apps="core")
start = {"start_mib": read_mib()}
status = TestClient(app, raise_server_exceptions=False).get("/catalog/overview").status_code
page = {"page_mib": read_mib(), "page_status": status}
print(json.dumps(start | page | {"heavy": sorted({"torch", "scipy", "openvino"} & set(sys.modules))}))
"""


@dataclass(frozen=True)
class ServerCost:
    """Memory after the start, and after a page was requested without a login, which loads all that pages need."""

    start_mib: float
    page_mib: float
    page_status: int
    heavy: list[str]


def start_api_server(home: Path, plugins: Path) -> ServerCost:
    """Create the application in a process of its own; ``home`` is Airflow's folder, empty or used before."""
    plugins.mkdir(exist_ok=True)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")},
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(plugins),
        "PYTHONPATH": os.pathsep.join((str(PROJECT_ROOT), str(plugins))),
    }
    finished = subprocess.run(
        [sys.executable, "-c", START],
        cwd=home,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return ServerCost(**json.loads(finished.stdout.splitlines()[-1]))


def test_the_pages_cost_little_memory_and_nothing_heavy(tmp_path: Path) -> None:
    without = start_api_server(tmp_path, tmp_path / "none")
    plugged = start_api_server(tmp_path, PLUGINS)
    # The request has no login, but it loads everything that pages need.
    assert plugged.page_status == 401
    assert plugged.heavy == []
    assert plugged.page_mib - without.page_mib <= MAX_GROWTH_MIB
    # The start alone loads little more than an address.
    assert plugged.start_mib - without.start_mib <= MAX_GROWTH_MIB / 5
