"""The process that serves a checkpoint and measures itself: ``python -m jobs.evaluation.serving_probe``.

Arguments: kind, folder of the checkpoint, folder of photos, device, precision, seconds of a round. The last line of
standard output is a `jobs.evaluation.evaluation_record.Serving` in JSON.
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
import torch

from jobs.database.model_versions import ModelKind
from jobs.evaluation.evaluation_record import Serving
from jobs.evaluation.served_model import ServedModel, load_served_model
from jobs.models.device import choose_device
from jobs.tagging.decode import DecodedImage, DecodeLimits, decode_image

WARM_UP_PHOTOS = 3
ROUNDS = 5
MAX_DECODED_PHOTOS = 64
"""Kept in memory to measure the throughput; a shard has about as many decoded at a time."""


def probe_serving(model: ServedModel, photos: Sequence[bytes], round_seconds: float) -> Serving:
    """Ask for every photo by itself, then for batches of those that could be answered.

    A photo fails where its bytes cannot be decoded or the model's numbers are no numbers.
    """
    limits = DecodeLimits.for_labelled_photo(2 * model.geometry.resize_to)
    for photo in photos[:WARM_UP_PHOTOS]:
        _answer(model, photo, limits)
    seconds, failed = 0.0, 0
    decoded: list[np.ndarray] = []
    for photo in photos:
        started = time.perf_counter()
        pixels = _answer(model, photo, limits)
        seconds += time.perf_counter() - started
        if pixels is None:
            failed += 1
        elif len(decoded) < MAX_DECODED_PHOTOS:
            decoded.append(pixels)
    return Serving(
        images=len(photos),
        mean_latency_milliseconds=1000 * seconds / len(photos) if photos else None,
        images_per_second=_measure_throughput(model, decoded, round_seconds) if decoded else None,
        failed_share=failed / len(photos) if photos else None,
        peak_memory_bytes=_read_peak_memory(),
    )


def _answer(model: ServedModel, photo: bytes, limits: DecodeLimits) -> np.ndarray | None:
    """From bytes to an answer; gives the decoded pixels back, or None where there was no answer."""
    decoded = decode_image(photo, limits)
    if not isinstance(decoded, DecodedImage):
        return None
    output = model.predict_batch(model.geometry.apply(decoded.pixels)[None])
    return decoded.pixels if np.isfinite(output).all() else None


def _measure_throughput(model: ServedModel, decoded: Sequence[np.ndarray], round_seconds: float) -> float:
    """Images a second, resized and answered in batches side by side, in the best of several rounds.

    The best, since other processes of a shared machine can only take away from it.
    """
    passes = model.model.passes
    with ThreadPoolExecutor(passes) as pool:

        def answer_until(deadline: float, photos: Sequence[np.ndarray]) -> int:
            images, source = 0, cycle(photos)
            while time.perf_counter() < deadline:
                batch = list(islice(source, model.model.batch_size))
                model.predict_batch(torch.stack([model.geometry.apply(pixels) for pixels in batch]))
                images += len(batch)
            return images

        def measure_round() -> float:
            started = time.perf_counter()
            workers = [pool.submit(answer_until, started + round_seconds, decoded) for _ in range(passes)]
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
    """Serve what the arguments name, and print what was measured."""
    kind, checkpoint, photos, device, precision, round_seconds = sys.argv[1:]
    model = load_served_model(Path(checkpoint), cast(ModelKind, kind), choose_device(device, precision))
    contents = [path.read_bytes() for path in sorted(Path(photos).iterdir())]
    serving = probe_serving(model, contents, float(round_seconds))
    print(json.dumps(asdict(serving)))  # noqa: T201


if __name__ == "__main__":
    main()
