"""What the pages cost Airflow's API server: seconds to start, and memory, also once a page was asked for.

    python -m benchmarks.serving.api_server [--repetitions 5]

The server's own application is made in fresh processes, in turn with and without our plugin.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.machine import describe_machine
from jobs.settings import PROJECT_ROOT

PLUGINS = PROJECT_ROOT / "plugins"
START = """
import json, sys, time, warnings
from pathlib import Path
warnings.simplefilter("ignore")

def read_mib():
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024

from fastapi.testclient import TestClient
started = time.perf_counter()
from airflow.api_fastapi.app import create_app
app = create_app(apps="core")
start = {"seconds": time.perf_counter() - started, "start_mib": read_mib()}
started = time.perf_counter()
status = TestClient(app, raise_server_exceptions=False).get("/catalog/overview").status_code
page = {"first_page_seconds": time.perf_counter() - started, "page_mib": read_mib(), "page_status": status}
print(json.dumps(start | page | {"heavy": sorted({"torch", "scipy", "openvino"} & set(sys.modules))}))
"""


@dataclass(frozen=True)
class ServerCost:
    """One start; a page that is asked for without a login, ``page_status``, loads all that pages need."""

    seconds: float
    start_mib: float
    first_page_seconds: float
    page_mib: float
    page_status: int
    heavy: list[str]


def start_api_server(home: Path, plugins: Path) -> ServerCost:
    """Make the application in a process of its own; ``home`` is Airflow's folder, empty or used before."""
    plugins.mkdir(exist_ok=True)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")},
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(plugins),
        "PYTHONPATH": os.pathsep.join((str(PROJECT_ROOT), str(plugins))),
    }
    answer = subprocess.run(
        [sys.executable, "-c", START],
        cwd=home,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return ServerCost(**json.loads(answer.stdout.splitlines()[-1]))


def main() -> None:
    """Print the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=5)
    repetitions = parser.parse_args().repetitions
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        home, nothing = Path(folder), Path(folder) / "no-plugins"
        start_api_server(home, PLUGINS)
        pairs = [(start_api_server(home, nothing), start_api_server(home, PLUGINS)) for _ in range(repetitions)]
    print(json.dumps({"machine": describe_machine("apache-airflow", "fastapi")}))
    for name in ("seconds", "start_mib", "first_page_seconds", "page_mib"):
        without, plugged = (statistics.median(getattr(pair[side], name) for pair in pairs) for side in (0, 1))
        growth = {"without": round(without, 2), "with": round(plugged, 2), "growth": round(plugged - without, 2)}
        print(json.dumps({name: growth}))


if __name__ == "__main__":
    main()
