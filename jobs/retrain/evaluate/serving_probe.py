"""The process that serves a checkpoint and measures itself: ``python -m jobs.retrain.evaluate.serving_probe``.

Arguments: kind, folder of the checkpoint, folder of photos, device, precision, seconds of a round. The last line of
standard output is a `jobs.retrain.evaluate.evaluation_record.Serving` in JSON.
"""

import json
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from itertools import cycle, islice
from pathlib import Path
from typing import cast

import numpy as np
from PIL import Image

from jobs.database.model_versions import ModelKind
from jobs.images.decode import DecodedPil, DecodeLimits, decode_pil
from jobs.models.image_model import EngineSettings, ImageModel, load_image_model
from jobs.retrain.evaluate.evaluation_record import Serving

WARM_UP_PHOTOS = 3
ROUNDS = 5
MAX_DECODED_PHOTOS = 64
"""Kept in memory to measure the throughput; a shard has about as many decoded at a time."""


def probe_serving(model: ImageModel, photos: Sequence[bytes], round_seconds: float) -> Serving:
    """Ask for every photo by itself, then for batches of those that could be answered.

    A photo fails where its bytes cannot be decoded or the model's numbers are no numbers.
    """
    limits = DecodeLimits.for_labelled_photo(2 * model.geometry.resize_to)
    for photo in photos[:WARM_UP_PHOTOS]:
        _answer(model, photo, limits)
    seconds, failed = 0.0, 0
    decoded: list[Image.Image] = []
    for photo in photos:
        started = time.perf_counter()
        answered = _answer(model, photo, limits)
        seconds += time.perf_counter() - started
        if answered is None:
            failed += 1
        elif len(decoded) < MAX_DECODED_PHOTOS:
            decoded.append(answered)
    return Serving(
        images=len(photos),
        mean_latency_milliseconds=1000 * seconds / len(photos) if photos else None,
        images_per_second=_measure_throughput(model, decoded, round_seconds) if decoded else None,
        failed_share=failed / len(photos) if photos else None,
        peak_memory_bytes=_read_peak_memory(),
    )


def _answer(model: ImageModel, content: bytes, limits: DecodeLimits) -> Image.Image | None:
    """From bytes to an answer; gives the decoded photo back, or None where there was no answer."""
    decoded = decode_pil(content, limits)
    if not isinstance(decoded, DecodedPil):
        return None
    output = model.predict(np.stack([model.geometry.resize(decoded.image)]))
    return decoded.image if np.isfinite(output).all() else None


def _measure_throughput(model: ImageModel, decoded: Sequence[Image.Image], round_seconds: float) -> float:
    """Images a second, resized and answered in batches side by side, in the best of several rounds.

    The best, since other processes of a shared machine can only take away from it.
    """
    with ThreadPoolExecutor(model.passes) as pool:

        def answer_until(deadline: float) -> int:
            images, source = 0, cycle(decoded)
            while time.perf_counter() < deadline:
                batch = islice(source, model.batch_size)
                model.predict(np.stack([model.geometry.resize(photo) for photo in batch]))
                images += model.batch_size
            return images

        def measure_round() -> float:
            started = time.perf_counter()
            workers = [pool.submit(answer_until, started + round_seconds) for _ in range(model.passes)]
            return sum(worker.result() for worker in workers) / (time.perf_counter() - started)

        return max(measure_round() for _ in range(ROUNDS))


def _read_peak_memory() -> int | None:
    """The most resident memory that this program ever had, in bytes.

    Not ``getrusage``, whose number a process takes over from the one that started it.
    """
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return None


def main() -> None:
    """Serve what the arguments name, as the tagger does, and print what was measured."""
    kind, checkpoint, photos, device, precision, round_seconds = sys.argv[1:]
    model = load_image_model(Path(checkpoint), cast(ModelKind, kind), EngineSettings(device, precision))
    contents = [path.read_bytes() for path in sorted(Path(photos).iterdir())]
    serving = probe_serving(model, contents, float(round_seconds))
    print(json.dumps(asdict(serving)))  # noqa: T201


if __name__ == "__main__":
    main()
