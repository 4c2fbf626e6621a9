"""How the stored artifact serves: measured in a fresh process, which has nothing but its files and photos."""

import logging
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from itertools import count
from pathlib import Path

from pydantic import TypeAdapter

from jobs.database.model_versions import ModelKind
from jobs.progress import SILENT, Progress
from jobs.retrain.evaluate.evaluation_record import Serving
from jobs.settings import PROJECT_ROOT, Settings

log = logging.getLogger(__name__)
MAX_PHOTOS = 200
ROUND_SECONDS = 0.5
"""How long each round of the throughput measurement lasts."""
TIMEOUT_SECONDS = 900
REPORT_SECONDS = 10


def measure_serving(
    artifact: Path,
    kind: ModelKind,
    photos: Sequence[bytes],
    settings: Settings,
    scratch: Path,
    progress: Progress = SILENT,
) -> Serving:
    """Measure a checkpoint on photos, of which the first 200 count; ``scratch`` is an empty folder.

    What a process that died or hung would have measured is None.
    """
    asked = photos[:MAX_PHOTOS]
    for number, photo in enumerate(asked):
        (scratch / f"{number:05d}").write_bytes(photo)
    command = [sys.executable, "-m", "jobs.retrain.evaluate.serving_probe", kind, str(artifact), str(scratch)]
    try:
        output = _run_probe(
            [*command, settings.compute.device, settings.compute.precision, str(ROUND_SECONDS)], progress
        )
    except subprocess.CalledProcessError as error:
        log.error("the process that served the artifact ended with %d: %s", error.returncode, error.stderr[-2000:])
        return Serving(len(asked), None, None, None, None)
    except subprocess.TimeoutExpired:
        log.error("the process that served the artifact took more than %d s", TIMEOUT_SECONDS)
        return Serving(len(asked), None, None, None, None)
    return TypeAdapter(Serving).validate_json(output.splitlines()[-1])


def _run_probe(command: Sequence[str], progress: Progress) -> str:
    """Return what the process writes; the seconds are reported, since it has no other news for minutes."""
    with ThreadPoolExecutor(1) as pool:
        probe = pool.submit(
            subprocess.run,
            command,
            cwd=PROJECT_ROOT,
            capture_output=True,
            text=True,
            check=True,
            timeout=TIMEOUT_SECONDS,
        )
        for seconds in count(0, REPORT_SECONDS):
            progress.report("measuring how the artifact serves", seconds, unit="seconds")
            if wait([probe], REPORT_SECONDS).done:
                break
        output: str = probe.result().stdout
        return output
