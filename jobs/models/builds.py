"""Fetch the build of a model version for this machine. If there is none yet, make it in a separate process."""

import ctypes
import logging
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import cast

from jobs.connections import Connections
from jobs.database.model_builds import (
    BUILD_HOURS,
    BuildChoice,
    DeviceClass,
    Precision,
    RegisteredBuild,
    choose_build,
    list_builds,
)
from jobs.database.model_versions import ModelVersion
from jobs.errors import ConfigurationError, PermanentError, RetryableError, TerminatedError
from jobs.models.registry import fetch_artifact
from jobs.settings import PROJECT_ROOT, ComputeSettings
from jobs.stopping import is_stop_requested

log = logging.getLogger(__name__)

POLL_SECONDS = 0.5


def choose_builds(compute: ComputeSettings) -> BuildChoice:
    """Return which builds this machine runs, according to the settings and its devices."""
    engine = None if compute.engine == "auto" else compute.engine
    precision = None if compute.precision == "auto" else cast(Precision, compute.precision)
    return BuildChoice(find_device_class(compute.device), engine, precision)


@cache
def find_device_class(device: str) -> DeviceClass:
    """Resolve ``auto`` to ``cuda`` if torch can use a GPU. Without any GPU, do not import torch to find out."""
    if device != "auto":
        return cast(DeviceClass, device)
    if _count_gpus() == 0:
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _count_gpus() -> int:
    """Ask NVIDIA's driver for the number of GPUs that this process may use."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    is_ready = driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0
    return count.value if is_ready else 0


def find_build(connections: Connections, model_version_id: int) -> RegisteredBuild | None:
    """Return the build of a version that this machine runs, or None if it has to be made."""
    with connections.engine.connect() as connection:
        builds = list_builds(connection, model_version_id)
    suitable = [replace(one, artifact_uri=None) if _is_emulated(one) else one for one in builds]
    return choose_build(suitable, choose_builds(connections.settings.compute))


def _is_emulated(build: RegisteredBuild) -> bool:
    """Return whether this processor lacks the precision of a torch build. OpenVINO graphs then run in float32."""
    if build.device_class != "cpu" or build.engine != "torch" or build.precision == "fp32":
        return False
    # Imported only here: with builds for OpenVINO, processes start without torch.
    from jobs.models.device import choose_device

    return choose_device("cpu", build.precision).precision != build.precision


def ensure_build(connections: Connections, version: ModelVersion) -> RegisteredBuild:
    """Return the build of a version that this machine runs. Make and register it if there is none.

    Raises:
        RetryableError, ConfigurationError: it cannot be made. The log of the process says why.
    """
    if build := find_build(connections, version.model_version_id):
        return build
    log.info("%s %d has no build for this machine yet, making one", version.kind, version.model_version_id)
    # In its own process, because the libraries that make builds would stay in the memory of this one.
    command = [sys.executable, "-m", "jobs", "build", str(version.model_version_id)]
    exit_code = _run(command)
    build = find_build(connections, version.model_version_id)
    if build is None:
        # Any other end has a cause outside the version, such as a signal.
        failure = ConfigurationError if exit_code == PermanentError.exit_code else RetryableError
        raise failure(
            f"{version.kind} {version.model_version_id} has no build for this machine. "
            f"Run `catalog build {version.model_version_id}`"
        )
    return build


def _run(command: Sequence[str]) -> int:
    """Run a command and return its exit code. If this process is asked to stop, stop the command, too."""
    deadline = time.monotonic() + BUILD_HOURS * 3600
    with subprocess.Popen(command, cwd=PROJECT_ROOT, stdout=subprocess.DEVNULL) as process:
        try:
            while process.poll() is None and not is_stop_requested():
                if time.monotonic() > deadline:
                    raise RetryableError(f"making a build took more than {BUILD_HOURS} hours")
                time.sleep(POLL_SECONDS)
        finally:
            process.terminate()
    if is_stop_requested():
        raise TerminatedError("stopped while a build was made. Run the same command again")
    return process.returncode


def fetch_build(connections: Connections, version: ModelVersion) -> tuple[RegisteredBuild, Path]:
    """Return the build of a version that this machine runs, and its local folder.

    Raises:
        PermanentError: the files in the bucket do not match the registered hash.
        RetryableError, ConfigurationError: there is no build, and none can be made.
    """
    build = ensure_build(connections, version)
    assert build.artifact_uri is not None
    name = f"the build {build.describe()} of {version.kind} {version.model_version_id}"
    remedy = f"Run `catalog build {version.model_version_id} --again`"
    cache_folder = connections.settings.locations.model_cache
    return build, fetch_artifact(connections.store, build.artifact_uri, name, cache_folder, remedy)
