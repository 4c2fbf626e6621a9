"""The two towers of an encoder, fetched and loaded only when a question needs one."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from jobs.connections import Connections
from jobs.database.model_versions import read_model_version


class TextEmbedder(Protocol):
    """A text tower."""

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Turn texts into unit float32 vectors [n, dimensions]."""


EmbedPhoto = Callable[[np.ndarray], np.ndarray]
"""An image tower: uint8 RGB pixels [height, width, 3] to a unit float32 vector [dimensions]."""

LoadTextEmbedder = Callable[[int], TextEmbedder]
LoadPhotoEmbedder = Callable[[int], EmbedPhoto]
"""Both are given the id of a model version."""


def load_text_embedder(connections: Connections, model_version_id: int) -> TextEmbedder:
    """Load the text tower of a registered encoder.

    Raises:
        PermanentError: the checkpoint is not what was registered.
    """
    # Here and below: torch takes seconds to import, and a text that was embedded before does without.
    from jobs.models.device import choose_device
    from jobs.models.encoder import load_text_encoder

    device = choose_device(connections.settings.device, connections.settings.precision)
    return load_text_encoder(_fetch(connections, model_version_id), device)


def load_photo_embedder(connections: Connections, model_version_id: int) -> EmbedPhoto:
    """Load the image tower of a registered encoder; raises as `load_text_embedder` does."""
    from jobs.models.device import choose_device
    from jobs.models.encoder import load_image_encoder

    device = choose_device(connections.settings.device, connections.settings.precision)
    encoder = load_image_encoder(_fetch(connections, model_version_id), device)

    def embed_photo(pixels: np.ndarray) -> np.ndarray:
        batch = encoder.preprocessing.geometry.apply(pixels).unsqueeze(0).to(device.torch_device)
        vector: np.ndarray = encoder.predict(batch)[0].cpu().numpy()
        return vector

    return embed_photo


def _fetch(connections: Connections, model_version_id: int) -> Path:
    from jobs.models.registry import fetch_checkpoint

    with connections.engine.connect() as connection:
        version = read_model_version(connection, model_version_id)
    return fetch_checkpoint(connections.store, version, connections.settings.model_cache)
