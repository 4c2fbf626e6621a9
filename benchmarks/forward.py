"""The bare forward pass of two checkpoints on ready tensors: the speed that no pipeline can exceed.

python -m benchmarks.forward CLASSIFIER ENCODER BATCH_SIZE SECONDS
"""

import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from jobs.models.classifier import load_classifier
from jobs.models.device import choose_device
from jobs.models.encoder import load_image_encoder


def measure_forward(classifier: Path, encoder: Path, batch_size: int, seconds: float) -> dict[str, object]:
    """Images per second of both models together, by the best of the usual ways to use the cores."""
    device = choose_device("auto", "auto")
    first, second = load_classifier(classifier, device), load_image_encoder(encoder, device)
    sides = [model.preprocessing.geometry.crop_to for model in (first, second)]
    inputs = [torch.randn(batch_size, 3, side, side).to(device.torch_device, device.dtype) for side in sides]
    inputs[0] = inputs[0].contiguous(memory_format=torch.channels_last)

    @torch.inference_mode()
    def forward_until(deadline: float) -> int:
        images = 0
        while time.perf_counter() < deadline:
            first.model(pixel_values=inputs[0])
            second.model.get_image_features(pixel_values=inputs[1])
            if device.is_cuda:
                torch.cuda.synchronize()
            images += batch_size
        return images

    def measure(workers: int, threads: int) -> float:
        torch.set_num_threads(threads)
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(forward_until, [time.perf_counter() + 1] * workers))
            started = time.perf_counter()
            images = sum(pool.map(forward_until, [started + seconds] * workers))
            return images / (time.perf_counter() - started)

    cores = len(os.sched_getaffinity(0))
    ways = [(1, cores)] if device.is_cuda else [(1, cores), (cores, 1)]
    speeds = {f"{workers} x {threads} threads": measure(workers, threads) for workers, threads in ways}
    return {"device": device.torch_device.type, "dtype": str(device.dtype), "images_per_second": speeds}


if __name__ == "__main__":
    print(json.dumps(measure_forward(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))))
