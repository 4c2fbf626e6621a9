"""Kill services: the query service, and the local stack during its start."""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import psutil

from benchmarks.scenarios.chaos.jobs import DEADLINE_SECONDS, DONE, Kill
from benchmarks.scenarios.chaos.kill_scenarios import tag_shop
from benchmarks.scenarios.chaos.sandboxes import Servers
from benchmarks.scenarios.chaos.tally import KILL_SERVICES, Tally, Violations
from fixtures.shop import make_image
from jobs.errors import RetryableError
from jobs.local.ports import find_free_port
from jobs.local.services import find_stack_processes, identify_stack
from jobs.serve.client import QueryClient
from jobs.settings import HOME_VARIABLE, LOCAL_STACK_FOLDER, PROJECT_ROOT

SERVICE_SECONDS = 6.0
STACK_SECONDS = 20.0
TERMINATED = 143


def kill_query_service(servers: Servers, tally: Tally, kills: int) -> None:
    """Kill the query service at a random moment, restart it, and classify an image."""
    with servers.open_sandbox() as sandbox:
        tag_shop(sandbox)
        settings = {"CATALOG_SERVE_PORT": str(find_free_port())}
        for _ in range(kills):
            number = random.choice((signal.SIGTERM, signal.SIGKILL))
            killed = sandbox.jobs.run(
                "serve", kill=Kill(random.uniform(0.3, SERVICE_SECONDS), number), settings=settings
            )
            responses: list[int] = []
            again = sandbox.jobs.run("serve", disturb=partial(_classify, settings, responses), settings=settings)
            violations = (
                killed.check(DONE, -number, TERMINATED) + again.check(DONE) + Violations(lost=1 - len(responses))
            )
            tally.add(KILL_SERVICES, "kill serve", violations, killed.was_killed)


def _classify(settings: dict[str, str], responses: list[int], job: psutil.Process) -> None:
    """Retry until the service responds, then end it."""
    until = time.monotonic() + DEADLINE_SECONDS
    with QueryClient(f"http://127.0.0.1:{settings['CATALOG_SERVE_PORT']}") as client:
        while not responses and time.monotonic() < until:
            with suppress(RetryableError):
                responses.append(client.classify(make_image(1)).model_version_id)
            time.sleep(0.1)
    job.send_signal(signal.SIGTERM)


def kill_stack(servers: Servers, tally: Tally, kills: int) -> None:
    """Kill ``stack up`` at a random moment. The next one must succeed, and ``stack down`` must leave no process."""
    with tempfile.TemporaryDirectory(dir=servers.folder) as home:
        folder = Path(home) / LOCAL_STACK_FOLDER.name
        for _ in range(kills):
            was_killed = _run_stack(home, "up", random.uniform(0.5, STACK_SECONDS)) is None
            codes = [_run_stack(home, "up"), _run_stack(home, "down")]
            left = find_stack_processes(identify_stack(folder))
            tally.add(
                KILL_SERVICES,
                "kill stack up",
                Violations(hung=len(left), exit_code=len(codes) - codes.count(DONE)),
                was_killed,
            )


def _run_stack(home: str, command: str, kill_after_seconds: float | None = None) -> int | None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("CATALOG_", "AIRFLOW"))}
    with subprocess.Popen(
        [sys.executable, "-m", "jobs", "stack", command],
        cwd=PROJECT_ROOT,
        env=environment | {HOME_VARIABLE: home},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        with suppress(subprocess.TimeoutExpired):
            return process.wait(kill_after_seconds or DEADLINE_SECONDS)
        process.kill()
        return None
