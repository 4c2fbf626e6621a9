"""Measure the speed, memory and failures of a stored artifact, in a separate process that loads nothing else.

The process runs ``python -m jobs.retrain.evaluate.serving``. Its arguments are kind, checkpoint folder, image folder,
device, precision, and the length of a round in seconds. Its last line of output is a `ServingMetrics` in JSON.
"""

import json
import logging
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import asdict
from itertools import count, cycle, islice
from pathlib import Path
from typing import cast

import numpy as np
from PIL import Image
from pydantic import TypeAdapter

from jobs.database.model_versions import ModelKind
from jobs.images.decode import DecodedPil, DecodeLimits, decode_pil
from jobs.models.engine import EngineSettings, load_image_model
from jobs.models.image_model import ImageModel
from jobs.progress import SILENT, Progress
from jobs.retrain.evaluate.evaluation_record import ServingMetrics
from jobs.settings import PROJECT_ROOT, Settings

log = logging.getLogger(__name__)

MAX_IMAGES = 200
TIMEOUT_SECONDS = 900
REPORT_SECONDS = 10
WARM_UP_IMAGES = 3
ROUNDS = 5
ROUND_SECONDS = 0.5
"""Length of one round of the throughput measurement."""
MAX_DECODED_IMAGES = 64
"""Maximum number of decoded images in memory while measuring throughput, about as many as in a shard."""


def measure_serving(
    artifact: Path,
    kind: ModelKind,
    images: Sequence[bytes],
    settings: Settings,
    scratch: Path,
    progress: Progress = SILENT,
) -> ServingMetrics:
    """Measure a checkpoint on the first 200 images. ``scratch`` is an empty folder.

    If the process crashes or times out, all metrics are None.
    """
    images = images[:MAX_IMAGES]
    for number, image in enumerate(images):
        (scratch / f"{number:05d}").write_bytes(image)
    command = [sys.executable, "-m", __name__, kind, str(artifact), str(scratch)]
    try:
        output = _run_probe(
            [*command, settings.compute.device, settings.compute.precision, str(ROUND_SECONDS)], progress
        )
    except subprocess.CalledProcessError as error:
        log.error("the serving process failed with exit code %d: %s", error.returncode, error.stderr[-2000:])
    except subprocess.TimeoutExpired:
        log.error("the serving process did not finish within %d s", TIMEOUT_SECONDS)
    else:
        return TypeAdapter(ServingMetrics).validate_json(output.splitlines()[-1])
    return ServingMetrics(len(images), None, None, None, None)


def _run_probe(command: Sequence[str], progress: Progress) -> str:
    """Run the process and return its output. It may take minutes, so report the elapsed seconds as progress."""
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
            progress.report("measuring how the artifact is served", seconds, unit="seconds")
            if wait([probe], REPORT_SECONDS).done:
                break
        output: str = probe.result().stdout
        return output


def probe_serving(model: ImageModel, images: Sequence[bytes], round_seconds: float) -> ServingMetrics:
    """Measure the latency with single images, then the throughput with batches.

    An image fails if it cannot be decoded or if its outputs contain NaN.
    """
    limits = DecodeLimits.for_labeled_image(2 * model.geometry.resize_to)
    for image in images[:WARM_UP_IMAGES]:
        _predict(model, image, limits)
    seconds, failed = 0.0, 0
    decoded: list[Image.Image] = []
    for image in images:
        started = time.perf_counter()
        predicted = _predict(model, image, limits)
        seconds += time.perf_counter() - started
        if predicted is None:
            failed += 1
        elif len(decoded) < MAX_DECODED_IMAGES:
            decoded.append(predicted)
    return ServingMetrics(
        images=len(images),
        mean_latency_milliseconds=1000 * seconds / len(images) if images else None,
        images_per_second=_measure_throughput(model, decoded, round_seconds) if decoded else None,
        failed_share=failed / len(images) if images else None,
        peak_memory_bytes=_read_peak_memory(),
    )


def _predict(model: ImageModel, content: bytes, limits: DecodeLimits) -> Image.Image | None:
    """Decode an image and predict it. Return the decoded image, or None if the image failed."""
    decoded = decode_pil(content, limits)
    if not isinstance(decoded, DecodedPil):
        return None
    output = model.predict(np.stack([model.geometry.resize(decoded.image)]))
    return decoded.image if np.isfinite(output).all() else None


def _measure_throughput(model: ImageModel, decoded: Sequence[Image.Image], round_seconds: float) -> float:
    """Return the images per second that are resized and predicted in parallel batches.

    The best of several rounds counts, because other processes on a shared machine can only slow a round down.
    """
    with ThreadPoolExecutor(model.passes) as pool:

        def predict_until(deadline: float) -> int:
            images, source = 0, cycle(decoded)
            while time.perf_counter() < deadline:
                batch = islice(source, model.batch_size)
                model.predict(np.stack([model.geometry.resize(image) for image in batch]))
                images += model.batch_size
            return images

        def measure_round() -> float:
            started = time.perf_counter()
            workers = [pool.submit(predict_until, started + round_seconds) for _ in range(model.passes)]
            return sum(worker.result() for worker in workers) / (time.perf_counter() - started)

        return max(measure_round() for _ in range(ROUNDS))


def _read_peak_memory() -> int | None:
    """Return the peak resident memory of this process in bytes.

    ``getrusage`` is unsuitable: a child process inherits the value of its parent.
    """
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return None


def main() -> None:
    """Load the model named in the arguments as the ingest flow does, and print its metrics."""
    kind, checkpoint, images, device, precision, round_seconds = sys.argv[1:]
    model = load_image_model(Path(checkpoint), cast(ModelKind, kind), EngineSettings(device, precision))
    contents = [path.read_bytes() for path in sorted(Path(images).iterdir())]
    print(json.dumps(asdict(probe_serving(model, contents, float(round_seconds)))))  # noqa: T201


if __name__ == "__main__":
    main()
