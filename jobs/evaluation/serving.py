"""How the stored artifact serves: measured in a fresh process, which has nothing but its files and photos."""

import logging
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from pydantic import TypeAdapter

from jobs.database.model_versions import ModelKind
from jobs.evaluation.evaluation_record import Serving
from jobs.settings import PROJECT_ROOT, Settings

log = logging.getLogger(__name__)
MAX_PHOTOS = 200
TIMEOUT_SECONDS = 900


def measure_serving(
    artifact: Path, kind: ModelKind, photos: Sequence[bytes], settings: Settings, scratch: Path
) -> Serving:
    """Measure a checkpoint on photos, of which the first 200 count; ``scratch`` is an empty folder.

    What a process that died or hung would have measured is None.
    """
    asked = photos[:MAX_PHOTOS]
    for number, photo in enumerate(asked):
        (scratch / f"{number:05d}").write_bytes(photo)
    command = [sys.executable, "-m", "jobs.evaluation.serving_probe", kind, str(artifact), str(scratch)]
    try:
        probe = subprocess.run(
            [*command, settings.device, settings.precision],
            cwd=PROJECT_ROOT,
            capture_output=True,
            text=True,
            check=True,
            timeout=TIMEOUT_SECONDS,
        )
    except subprocess.CalledProcessError as error:
        log.error("the process that served the artifact ended with %d: %s", error.returncode, error.stderr[-2000:])
        return Serving(len(asked), None, None, None, None)
    except subprocess.TimeoutExpired:
        log.error("the process that served the artifact took more than %d s", TIMEOUT_SECONDS)
        return Serving(len(asked), None, None, None, None)
    return TypeAdapter(Serving).validate_json(probe.stdout.splitlines()[-1])
