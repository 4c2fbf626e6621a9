"""Run the image side of a classifier or encoder in batches, with the same engines as the ingest flow."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from jobs.database.model_versions import ModelKind
from jobs.images.geometry import Geometry
from jobs.models.device import Device, prepare_passes
from jobs.models.engine import EngineSettings, load_image_model
from jobs.models.image_model import ImageModel
from jobs.models.torch_model import load_torch_model
from jobs.progress import SILENT, Progress

_Image = TypeVar("_Image")


@dataclass(frozen=True)
class ServedVersion:
    """The local folders of a model version: its checkpoint, and the build that serves its image side."""

    checkpoint: Path
    build: Path


@dataclass(frozen=True)
class ServedModel:
    """A loaded model that maps resized pixels to probabilities or vectors. An encoder has no ``categories``."""

    model: ImageModel
    categories: tuple[str, ...]

    @property
    def geometry(self) -> Geometry:
        """Return how images are resized for this model."""
        return self.model.geometry

    def predict(self, pixels: torch.Tensor) -> np.ndarray:
        """Predict one batch: uint8 [n, 3, side, side] to float32 [n, outputs]."""
        return self.model.predict(np.ascontiguousarray(pixels.permute(0, 2, 3, 1).numpy()))

    def predict_in_batches(
        self,
        images: Sequence[_Image],
        load: Callable[[Sequence[_Image]], torch.Tensor],
        progress: Progress = SILENT,
        stage: str = "scoring images",
    ) -> np.ndarray:
        """Predict at least one image: float32 [n, outputs].

        ``load`` returns the pixels of some images: uint8 [n, 3, side, side]. One batch per pass is in memory.
        """
        size, passes = self.model.batch_size, self.model.passes
        return _map_batches(lambda batch: self.predict(load(batch)), images, size, passes, progress, stage)


def load_served_model(folder: Path, kind: ModelKind, device: Device) -> ServedModel:
    """Load a build as it is served on a device.

    Raises:
        PermanentError: the folder contains no model of this kind, or this machine cannot run it.
    """
    place = device.torch_device
    model = load_image_model(folder, kind, EngineSettings(place.type, device.precision, place.index or 0))
    return ServedModel(model, model.categories)


def load_trained_model(folder: Path, kind: ModelKind, device: Device) -> ServedModel:
    """Load a checkpoint in torch and ignore its build record. Raises PermanentError if it has another kind."""
    model = load_torch_model(folder, kind, device)
    return ServedModel(model, model.categories)


def map_batches(work: Callable[[Any], np.ndarray], items: Sequence[str], device: Device) -> np.ndarray:
    """Apply ``work`` to batches in parallel, sized for the device. Return one row for each item, in order."""
    return _map_batches(work, items, device.batch_size, prepare_passes(device))


def _map_batches(
    work: Callable[[Any], np.ndarray],
    items: Sequence[Any],
    size: int,
    passes: int,
    progress: Progress = SILENT,
    stage: str = "",
) -> np.ndarray:
    batches = [items[start : start + size] for start in range(0, len(items), size)]
    with ThreadPoolExecutor(passes) as pool:
        outputs = progress.track(stage, pool.map(work, batches), len(items), size=size)
        return np.concatenate(list(outputs))
