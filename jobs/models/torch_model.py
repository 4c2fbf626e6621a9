"""The engine that works everywhere: checkpoints in torch, on a GPU where there is one."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from jobs.database.model_versions import ModelKind
from jobs.errors import RetryableError
from jobs.images.geometry import Geometry
from jobs.models.classifier import UNCALIBRATED, load_classifier, read_categories, read_temperature
from jobs.models.device import Device, prepare_passes, use_own_stream
from jobs.models.encoder import load_image_encoder
from jobs.models.image_model import EngineName, ModelBuild
from jobs.models.preprocessing import Preprocessing

Forward = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class TorchModel:
    """A checkpoint on a device; ``forward`` takes uint8 pixels [n, 3, side, side] that lie there."""

    geometry: Geometry
    categories: tuple[str, ...]
    forward: Forward
    device: Device
    passes: int

    @property
    def engine(self) -> EngineName:
        """This one."""
        return "torch"

    @property
    def description(self) -> str:
        """Engine and precision, for people."""
        return f"torch {str(self.device.dtype).removeprefix('torch.')} on {self.device.torch_device}"

    @property
    def batch_size(self) -> int:
        """As many as suit the device."""
        return self.device.batch_size

    def predict(self, pixels: np.ndarray) -> np.ndarray:
        """Turn uint8 pixels [n, side, side, 3] into float32 [n, outputs]: calibrated probabilities or unit vectors."""
        # Channels stay last in memory, which is how convolutions like them.
        batch = torch.from_numpy(pixels).permute(0, 3, 1, 2)
        if self.device.is_cuda:
            batch = batch.pin_memory()
        with use_own_stream(self.device):
            return forward_halving(lambda part: self.forward(self._to_device(part)).cpu(), batch).numpy()

    def _to_device(self, batch: torch.Tensor) -> torch.Tensor:
        return batch.to(self.device.torch_device, non_blocking=True)


def load_torch_model(folder: Path, kind: ModelKind, device: Device) -> TorchModel:
    """Load a checkpoint for inference; on a CPU passes of torch have a single thread from here on.

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
    """How a checkpoint is served before anything faster is tried: by torch, in float32."""
    categories = read_categories(folder) if kind == "classifier" else ()
    temperature = (read_temperature(folder) if kind == "classifier" else None) or UNCALIBRATED
    geometry = Preprocessing.from_checkpoint(folder).geometry
    return ModelBuild(kind, "torch", "fp32", "fp32", geometry, categories, temperature)


def forward_halving(forward: Forward, batch: torch.Tensor) -> torch.Tensor:
    """Run a batch, in halves of halves where the GPU's memory does not hold it.

    Raises:
        RetryableError: not even one image fits.
    """
    try:
        return forward(batch)
    except torch.OutOfMemoryError:
        if len(batch) == 1:
            raise RetryableError("the GPU's memory does not hold one image: is another process using it?") from None
    torch.cuda.empty_cache()
    half = len(batch) // 2
    return torch.cat([forward_halving(forward, batch[:half]), forward_halving(forward, batch[half:])])
