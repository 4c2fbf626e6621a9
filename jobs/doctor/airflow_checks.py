"""Check Airflow: its components, the DAGs and the pool.

A program in Airflow's environment reads them from its database, so no login is needed. Jobs do not import Airflow.
"""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx
from pydantic import TypeAdapter

from jobs.doctor.checks import Finding
from jobs.errors import ConfigurationError, RetryableError
from jobs.local.airflow_services import GPU_POOL, choose_task_slots, has_airflow, make_airflow_environment
from jobs.settings import LOCAL_STACK_FOLDER, PROJECT_ROOT, read_own_variables

AIRFLOW_VARIABLES = ("AIRFLOW_HOME", "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN")
AIRFLOW_DEADLINE_SECONDS = 60.0
"""Importing Airflow takes several seconds of CPU time."""
_READER = PROJECT_ROOT / "plugins" / "catalog_airflow" / "installation.py"
_API_TIMEOUT_SECONDS = 5.0


@dataclass(frozen=True)
class AirflowState:
    """What Airflow's database contains. ``paused`` has all DAGs, ``health`` the status of each component or None."""

    version: str
    api_url: str
    health: dict[str, str | None]
    paused: dict[str, bool]
    import_errors: dict[str, str]
    pools: dict[str, int]


@dataclass(frozen=True)
class AirflowLocation:
    """The environment of Airflow's programs, and how many slots its pool should have."""

    environment: Mapping[str, str]
    slots: int


def find_airflow(tagging_slots: int, stack_folder: Path = LOCAL_STACK_FOLDER) -> AirflowLocation | None:
    """Find the Airflow that the environment configures, as in each container, or that of the local stack."""
    own = read_own_variables()
    if any(own.get(name) for name in AIRFLOW_VARIABLES):
        return AirflowLocation({**os.environ, **own}, tagging_slots)
    if has_airflow(stack_folder):
        slots = choose_task_slots()
        return AirflowLocation(make_airflow_environment(stack_folder, {}, slots), slots)
    return None


class AirflowExamination:
    """The checks of one Airflow, whose state is read once, by the first of them.

    DAGs in ``unused`` may be paused.
    """

    def __init__(self, location: AirflowLocation | None, unused: Collection[str] = ()) -> None:
        self._location = location
        self._unused = unused
        self._state: AirflowState | None = None

    def check_airflow(self) -> Finding:
        """Read the state of Airflow, and check that its servers run."""
        if self._location is None:
            return Finding(
                f"no Airflow is configured here: set {AIRFLOW_VARIABLES[0]}, or run this command in a container of "
                "Airflow",
                "skipped",
            )
        if importlib.util.find_spec("airflow") is None:
            return Finding("Airflow has another virtual environment, where this command checks it", "skipped")
        state = self._state = _read_state(self._location.environment)
        # The status of a DAG processor that has never run is None. A deployment needs no triggerer of its own.
        unhealthy = [
            name.replace("_", " ")
            for name, status in state.health.items()
            if status == "unhealthy" or (status is None and name == "dag_processor")
        ]
        if unhealthy:
            raise RetryableError(f"Airflow {state.version}: no heartbeat from {', '.join(unhealthy)}; see its log")
        url = f"{state.api_url}/api/v2/monitor/health"
        try:
            httpx.get(url, timeout=_API_TIMEOUT_SECONDS, trust_env=False).raise_for_status()
        except httpx.HTTPError as error:
            raise RetryableError(f"Airflow's API server does not respond at {url} ({error}); see its log") from None
        return Finding(f"Airflow {state.version}, all servers are running")

    def check_dags(self) -> Finding:
        """Check that each file in ``dags/`` became a DAG."""
        assert self._state is not None
        state, wanted = self._state, {path.stem for path in PROJECT_ROOT.glob("dags/*.py")}
        errors = [f"{name}: {error}" for name, error in sorted(state.import_errors.items())]
        missing = [f"no DAG {name}, check dags_folder" for name in sorted(wanted - state.paused.keys())]
        if errors or missing:
            raise ConfigurationError("; ".join(errors + missing))
        if paused := sorted(name for name in wanted if state.paused[name] and name not in self._unused):
            return Finding(f"paused: {', '.join(paused)}. Enable them on Airflow's page to run them", "warning")
        return Finding(f"{len(wanted)} DAGs, none paused")

    def check_pool(self) -> Finding:
        """Check that the pool has a slot for each tagging task."""
        assert self._state is not None
        assert self._location is not None
        slots, wanted = self._state.pools.get(GPU_POOL), self._location.slots
        cure = f"run `airflow pools set {GPU_POOL} {wanted} tagging`"
        if slots is None:
            raise ConfigurationError(f"there is no pool {GPU_POOL}, so no image is tagged: {cure}")
        if slots != wanted:
            return Finding(f"{GPU_POOL} has {slots} slots, not CATALOG_TAGGING_SLOTS={wanted}: {cure}", "warning")
        return Finding(f"{GPU_POOL} has {slots} slots")


def _read_state(environment: Mapping[str, str]) -> AirflowState:
    """Run the program that reads the state.

    Raises:
        ConfigurationError: Airflow cannot be imported, or its database cannot be read.
        RetryableError: it does not end in time.
    """
    try:
        # Without -P, the folder of the program would hide modules with the names of its neighbors.
        finished = subprocess.run(
            [sys.executable, "-P", str(_READER)],
            check=False,
            cwd=PROJECT_ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=AIRFLOW_DEADLINE_SECONDS - 5,
        )
    except subprocess.TimeoutExpired as error:
        raise RetryableError(f"Airflow's database was not read within {error.timeout:.0f} s") from None
    if finished.returncode:
        lines = finished.stderr.strip().splitlines() or ["no reason given"]
        reason = next((line for line in lines if "Error" in line.partition(":")[0]), lines[-1])
        raise ConfigurationError(f"the state of Airflow cannot be read: {reason}")
    return TypeAdapter(AirflowState).validate_python(json.loads(finished.stdout))
