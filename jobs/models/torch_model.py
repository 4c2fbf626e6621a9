"""Run checkpoints in torch, on a GPU or CPU."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from jobs.database.model_builds import DeviceClass, EngineName
from jobs.database.model_versions import ModelKind
from jobs.errors import RetryableError
from jobs.images.geometry import Geometry
from jobs.models.classifier import UNCALIBRATED, load_classifier, read_categories, read_temperature
from jobs.models.device import Device, prepare_passes, use_own_stream
from jobs.models.encoder import load_image_encoder
from jobs.models.image_model import ModelBuild
from jobs.models.preprocessing import Preprocessing

Forward = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class TorchModel:
    """A checkpoint on a device. ``forward`` takes uint8 pixels [n, 3, side, side] on that device."""

    geometry: Geometry
    categories: tuple[str, ...]
    forward: Forward
    device: Device
    passes: int

    @property
    def engine(self) -> EngineName:
        """The engine that runs the model."""
        return "torch"

    @property
    def description(self) -> str:
        """Engine and precision as text."""
        return f"torch {str(self.device.dtype).removeprefix('torch.')} on {self.device.torch_device}"

    @property
    def device_class(self) -> DeviceClass:
        """The class of the device that runs the model."""
        return "cuda" if self.device.is_cuda else "cpu"

    @property
    def batch_size(self) -> int:
        """The recommended number of images for the device."""
        return self.device.batch_size

    def predict(self, pixels: np.ndarray) -> np.ndarray:
        """Turn uint8 pixels [n, side, side, 3] into float32 [n, outputs]: calibrated probabilities or unit vectors."""
        # Only the view changes: channels stay last in memory, which is faster for convolutions.
        batch = torch.from_numpy(pixels).permute(0, 3, 1, 2)
        if self.device.is_cuda:
            batch = batch.pin_memory()
        with use_own_stream(self.device):
            return forward_halving(lambda part: self.forward(self._to_device(part)).cpu(), batch).numpy()

    def _to_device(self, batch: torch.Tensor) -> torch.Tensor:
        return batch.to(self.device.torch_device, non_blocking=True)


def load_torch_model(folder: Path, kind: ModelKind, device: Device) -> TorchModel:
    """Load a checkpoint for inference. On a CPU, this limits torch to one thread per pass.

    Raises:
        PermanentError: the folder holds no model of this kind.
    """
    passes = prepare_passes(device)
    if kind == "classifier":
        classifier = load_classifier(folder, device)
        geometry = classifier.preprocessing.geometry
        return TorchModel(geometry, classifier.categories, classifier.predict, device, passes)
    encoder = load_image_encoder(folder, device)
    return TorchModel(encoder.preprocessing.geometry, (), encoder.predict, device, passes)


def describe_checkpoint(folder: Path, kind: ModelKind) -> ModelBuild:
    """Return the build record of an unoptimized checkpoint: torch in float32."""
    categories = read_categories(folder) if kind == "classifier" else ()
    temperature = (read_temperature(folder) if kind == "classifier" else None) or UNCALIBRATED
    geometry = Preprocessing.from_checkpoint(folder).geometry
    return ModelBuild(kind, "torch", "fp32", "fp32", geometry, categories, temperature)


def forward_halving(forward: Forward, batch: torch.Tensor) -> torch.Tensor:
    """Run a batch. Halve it as often as the GPU runs out of memory.

    Raises:
        RetryableError: a single image does not fit.
    """
    try:
        return forward(batch)
    except torch.OutOfMemoryError:
        if len(batch) == 1:
            raise RetryableError("one image does not fit into the GPU memory. Is another process using it?") from None
    torch.cuda.empty_cache()
    half = len(batch) // 2
    return torch.cat([forward_halving(forward, batch[:half]), forward_halving(forward, batch[half:])])
