"""The bare forward pass of two checkpoints on ready tensors: the speed that no pipeline can exceed.

python -m benchmarks.forward CLASSIFIER ENCODER SECONDS
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


def measure_forward(classifier: Path, encoder: Path, seconds: float) -> dict[str, object]:
    """Images per second of both models together, for each of the usual ways to use the machine.

    Ways differ in passes at a time, threads within a pass, and images in a batch.
    """
    device = choose_device("auto", "auto")
    first, second = load_classifier(classifier, device), load_image_encoder(encoder, device)
    sides = [model.preprocessing.geometry.crop_to for model in (first, second)]

    def make_inputs(batch_size: int) -> list[torch.Tensor]:
        inputs = [torch.randn(batch_size, 3, side, side).to(device.torch_device, device.dtype) for side in sides]
        return [inputs[0].contiguous(memory_format=torch.channels_last), inputs[1]]

    @torch.inference_mode()
    def forward_until(deadline: float, batch_size: int) -> int:
        inputs = make_inputs(batch_size)
        images = 0
        while time.perf_counter() < deadline:
            first.model(pixel_values=inputs[0])
            second.model.get_image_features(pixel_values=inputs[1])
            if device.is_cuda:
                torch.cuda.synchronize()
            images += batch_size
        return images

    def measure(passes: int, threads: int, batch_size: int) -> float:
        torch.set_num_threads(threads)
        with ThreadPoolExecutor(passes) as pool:
            list(pool.map(forward_until, [time.perf_counter() + 1] * passes, [batch_size] * passes))
            started = time.perf_counter()
            images = sum(pool.map(forward_until, [started + seconds] * passes, [batch_size] * passes))
            return images / (time.perf_counter() - started)

    cores = len(os.sched_getaffinity(0))
    ways = (
        [(1, cores, batch_size) for batch_size in (64, 128)]
        if device.is_cuda
        else [(*way, batch_size) for way in ((1, cores), (cores, 1)) for batch_size in (16, 32)]
    )
    speeds = {f"{way[0]} x {way[1]} threads, batches of {way[2]}": measure(*way) for way in ways}
    return {"device": device.torch_device.type, "dtype": str(device.dtype), "images_per_second": speeds}


if __name__ == "__main__":
    print(json.dumps(measure_forward(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]))))
