"""What every engine offers: batches of uint8 photos in, numbers out."""

from typing import Protocol

import numpy as np

from jobs.models.geometry import Geometry
from jobs.models.production import EngineName


class ImageModel(Protocol):
    """The image side of a model, loaded; safe to call from ``passes`` threads at a time."""

    @property
    def engine(self) -> EngineName:
        """Which engine computes it."""

    @property
    def description(self) -> str:
        """Engine and precision, for people."""

    @property
    def geometry(self) -> Geometry:
        """How photos are resized for it."""

    @property
    def categories(self) -> tuple[str, ...]:
        """The names of a classifier's outputs, in order; none of an encoder."""

    @property
    def batch_size(self) -> int:
        """Photos that are best asked for at once."""

    @property
    def passes(self) -> int:
        """Batches that are best asked for side by side."""

    def predict(self, pixels: np.ndarray) -> np.ndarray:
        """Turn uint8 pixels [n, side, side, 3] into float32 [n, outputs]: calibrated probabilities or unit vectors."""
