"""The image side of a model of either kind, run as the tagger runs it, for those who hold pixels in torch."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from jobs.database.model_versions import ModelKind
from jobs.images.geometry import Geometry
from jobs.models.device import Device, prepare_passes
from jobs.models.image_model import EngineSettings, ImageModel, load_image_model
from jobs.models.torch_model import load_torch_model
from jobs.progress import SILENT, Progress


@dataclass(frozen=True)
class ServedModel:
    """A loaded model: resized pixels in, probabilities or vectors out; ``categories`` only of a classifier."""

    model: ImageModel
    categories: tuple[str, ...]

    @property
    def geometry(self) -> Geometry:
        """How photos are resized for it."""
        return self.model.geometry

    def predict_batch(self, pixels: torch.Tensor) -> np.ndarray:
        """One batch of uint8 pixels [n, 3, side, side]: float32 [n, outputs]."""
        return self.model.predict(np.ascontiguousarray(pixels.permute(0, 2, 3, 1).numpy()))

    def predict(self, pixels: torch.Tensor, progress: Progress = SILENT, stage: str = "scoring photos") -> np.ndarray:
        """Any number of pixels, at least one, in batches: uint8 [n, 3, side, side] to float32 [n, outputs]."""
        return _map_batches(self.predict_batch, pixels, self.model.batch_size, self.model.passes, progress, stage)


def load_served_model(folder: Path, kind: ModelKind, device: Device) -> ServedModel:
    """Load a model in the engine and precision that its folder names, or on a device as it is where it names none.

    Raises:
        PermanentError: the folder holds no model of this kind, or this machine cannot compute it.
    """
    place = device.torch_device
    model = load_image_model(folder, kind, EngineSettings(place.type, device.precision, place.index or 0))
    return ServedModel(model, model.categories)


def load_trained_model(folder: Path, kind: ModelKind, device: Device) -> ServedModel:
    """Load a checkpoint in torch, however it is served; raises PermanentError if it holds no model of this kind."""
    model = load_torch_model(folder, kind, device)
    return ServedModel(model, model.categories)


def map_batches(work: Callable[[Any], np.ndarray], items: Sequence[str], device: Device) -> np.ndarray:
    """Answer batches of the device's size side by side, in order: an array with a row for each item."""
    return _map_batches(work, items, device.batch_size, prepare_passes(device))


def _map_batches(
    work: Callable[[Any], np.ndarray],
    items: torch.Tensor | Sequence[str],
    size: int,
    passes: int,
    progress: Progress = SILENT,
    stage: str = "",
) -> np.ndarray:
    batches = [items[start : start + size] for start in range(0, len(items), size)]
    with ThreadPoolExecutor(passes) as pool:
        answers = progress.track(stage, pool.map(work, batches), len(items), size=size)
        return np.concatenate(list(answers))
