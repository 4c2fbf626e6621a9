"""Stage 5: pixels to probabilities and vectors, a batch at a time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from jobs.errors import RetryableError
from jobs.models.classifier import Classifier
from jobs.models.device import Device
from jobs.models.encoder import ImageEncoder
from jobs.models.preprocessing import Geometry

Forward = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Predictor:
    """A classifier and an encoder on one device; safe to call from several threads."""

    classifier: Classifier
    encoder: ImageEncoder
    device: Device

    @property
    def largest_side(self) -> int:
        """The longest resize target of the two models, in pixels."""
        return max(self.classifier.preprocessing.geometry.resize_to, self.encoder.preprocessing.geometry.resize_to)

    def predict_probabilities(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Classify uint8 RGB images [height, width, 3] of any sizes: float32 [n, categories]."""
        return self._predict(images, self.classifier.preprocessing.geometry, self.classifier.predict)

    def predict_vectors(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Embed uint8 RGB images [height, width, 3] of any sizes: unit float32 [n, dimensions]."""
        return self._predict(images, self.encoder.preprocessing.geometry, self.encoder.predict)

    def _predict(self, images: Sequence[np.ndarray], geometry: Geometry, forward: Forward) -> np.ndarray:
        batch = torch.stack([geometry.apply(pixels) for pixels in images])
        if self.device.is_cuda:
            batch = batch.pin_memory()
        return forward_halving(lambda part: forward(self._to_device(part)).cpu(), batch).numpy()

    def _to_device(self, batch: torch.Tensor) -> torch.Tensor:
        return batch.to(self.device.torch_device, non_blocking=True)


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
