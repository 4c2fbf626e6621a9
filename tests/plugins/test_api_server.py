"""The plugin adds little memory to the API server that loads it: Airflow's own application in a fresh process."""

import json
import os
import subprocess
import sys
from pathlib import Path

from jobs.settings import PROJECT_ROOT

MAX_GROWTH_MIB = 50
START = """
import json, sys, warnings
from pathlib import Path
warnings.simplefilter("ignore")

def read_mib():
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024

def find(*modules):
    return sorted(name for name in modules if name in sys.modules)

from fastapi.testclient import TestClient
from airflow.api_fastapi.app import create_app
app = create_app(apps="core")
cost = {"start_mib": read_mib(), "at_start": find("catalog_airflow.pages", "jobs")}
cost["page_status"] = TestClient(app, raise_server_exceptions=False).get("/catalog/models").status_code
print(json.dumps(cost | {"page_mib": read_mib(), "at_page": find("torch", "scipy", "openvino", "jobs")}))
"""


def test_the_pages_cost_little_memory_and_nothing_heavy(tmp_path: Path) -> None:
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")},
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(PROJECT_ROOT / "plugins"),
        "PYTHONPATH": os.pathsep.join((str(PROJECT_ROOT), str(PROJECT_ROOT / "plugins"))),
    }
    finished = subprocess.run(
        [sys.executable, "-c", START],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    cost = json.loads(finished.stdout.splitlines()[-1])
    # The start loads little more than an address.
    assert cost["at_start"] == []
    # The request has no login, but it loads everything that pages need.
    assert cost["page_status"] == 401
    assert cost["at_page"] == ["jobs"]
    assert cost["page_mib"] - cost["start_mib"] <= MAX_GROWTH_MIB
