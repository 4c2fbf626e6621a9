"""Many photos through a model that is not learning, without a trace in the process."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from jobs.database.model_versions import ModelKind
from jobs.models.device import Device
from jobs.models.preprocessing import Preprocessing
from jobs.progress import SILENT, Progress
from jobs.retrain.evaluate.served_model import load_trained_model

BATCH_SIZE = 32


@contextmanager
def keep_threads() -> Iterator[None]:
    """Restore the number of threads within a pass: on it depends in which order sums are made, and so each weight."""
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def ask_checkpoint(
    folder: Path, kind: ModelKind, pixels: torch.Tensor, device: Device, progress: Progress = SILENT
) -> np.ndarray:
    """What a checkpoint answers: float32 probabilities or unit vectors [n, outputs]."""
    with keep_threads():
        return load_trained_model(folder, kind, device).predict(pixels, progress)


def compute_outputs(
    model: Any, preprocessing: Preprocessing, pixels: torch.Tensor, device: Device, progress: Progress = SILENT
) -> torch.Tensor:
    """The logits of a model in memory, float32 on the CPU; there, one single-threaded pass for each core."""
    model.eval().to(device.torch_device, memory_format=torch.channels_last)

    def forward(part: torch.Tensor) -> torch.Tensor:
        inputs = preprocessing.normalize(part.to(device.torch_device), torch.float32)
        with (
            torch.inference_mode(),
            torch.autocast(device.torch_device.type, device.dtype, enabled=device.dtype is not torch.float32),
        ):
            outputs: torch.Tensor = model(pixel_values=inputs.contiguous(memory_format=torch.channels_last)).logits
        return outputs.float().cpu()

    with keep_threads():
        torch.set_num_threads(1)
        with ThreadPoolExecutor(1 if device.is_cuda else len(os.sched_getaffinity(0))) as pool:
            outputs = pool.map(forward, torch.split(pixels, BATCH_SIZE))
            return torch.cat(list(progress.track("computing features", outputs, len(pixels), size=BATCH_SIZE)))
