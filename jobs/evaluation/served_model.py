"""The image side of a model of either kind, run as the tagger runs it."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from jobs.database.model_versions import ModelKind
from jobs.models.classifier import load_classifier
from jobs.models.device import Device, prepare_passes
from jobs.models.encoder import load_image_encoder
from jobs.models.preprocessing import Geometry
from jobs.tagging.predict import Forward, forward_halving


@dataclass(frozen=True)
class ServedModel:
    """A loaded model: resized pixels in, probabilities or vectors out; ``categories`` only of a classifier."""

    geometry: Geometry
    categories: tuple[str, ...]
    forward: Forward
    device: Device

    def predict_batch(self, pixels: torch.Tensor) -> np.ndarray:
        """One forward pass over uint8 pixels [n, 3, side, side]: float32 [n, outputs]."""
        return forward_halving(lambda part: self.forward(part.to(self.device.torch_device)).cpu(), pixels).numpy()

    def predict(self, pixels: torch.Tensor) -> np.ndarray:
        """Any number of pixels, at least one, in batches: uint8 [n, 3, side, side] to float32 [n, outputs]."""
        return map_batches(self.predict_batch, pixels, self.device)


def load_served_model(folder: Path, kind: ModelKind, device: Device) -> ServedModel:
    """Load a checkpoint for inference; raises PermanentError if the folder holds no model of this kind."""
    if kind == "classifier":
        classifier = load_classifier(folder, device)
        return ServedModel(classifier.preprocessing.geometry, classifier.categories, classifier.predict, device)
    encoder = load_image_encoder(folder, device)
    return ServedModel(encoder.preprocessing.geometry, (), encoder.predict, device)


def map_batches(work: Callable[[Any], np.ndarray], items: torch.Tensor | Sequence[str], device: Device) -> np.ndarray:
    """Answer batches of the device's size side by side, in order: an array with a row for each item."""
    size = device.batch_size
    batches = [items[start : start + size] for start in range(0, len(items), size)]
    with ThreadPoolExecutor(prepare_passes(device)) as pool:
        return np.concatenate(list(pool.map(work, batches)))
