"""Load the text tower or the image tower of a registered encoder, when a search needs it."""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from PIL import Image

from jobs.connections import Connections
from jobs.database.model_versions import read_model_version
from jobs.models.builds import fetch_build
from jobs.models.engine import EngineSettings, load_image_model
from jobs.progress import show_progress


class TextEmbedder(Protocol):
    """A text tower."""

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Turn texts into unit float32 vectors [n, dimensions]."""


EmbedImage = Callable[[np.ndarray], np.ndarray]
"""Turn uint8 RGB pixels [height, width, 3] into a unit float32 vector [dimensions]."""

LoadTextEmbedder = Callable[[int], TextEmbedder]
"""Load the text tower of a model version id."""


def load_text_embedder(connections: Connections, model_version_id: int) -> TextEmbedder:
    """Load the text tower of a registered encoder.

    Raises:
        PermanentError: the checkpoint differs from the registered one.
    """
    with show_progress("search") as progress:
        progress.report("loading the text encoder")
        return _load_text_embedder(connections, model_version_id)


def _load_text_embedder(connections: Connections, model_version_id: int) -> TextEmbedder:
    # Importing torch takes seconds, and searches for known texts do not need it.
    from jobs.models.device import choose_device
    from jobs.models.registry import fetch_artifact, fetch_checkpoint

    settings = connections.settings
    # Always float32, because a search embeds only a few texts.
    device = choose_device(settings.compute.device, "fp32")
    with connections.engine.connect() as connection:
        version = read_model_version(connection, model_version_id)
    cache = settings.locations.model_cache
    if version.text_uri is None:
        from jobs.models.encoder import load_text_encoder

        return load_text_encoder(fetch_checkpoint(connections.store, version, cache), device)
    from jobs.models.exported_text import load_exported_text

    name = f"the text tower of encoder {model_version_id}"
    remedy = f"Run `catalog build {model_version_id} --again`"
    return load_exported_text(fetch_artifact(connections.store, version.text_uri, name, cache, remedy), device)


def load_image_embedder(connections: Connections, model_version_id: int) -> EmbedImage:
    """Load the image tower of a registered encoder. Raises the same errors as `load_text_embedder`."""
    settings = EngineSettings(connections.settings.compute.device, connections.settings.compute.precision)
    with connections.engine.connect() as connection:
        version = read_model_version(connection, model_version_id)
    _, folder = fetch_build(connections, version)
    encoder = load_image_model(folder, "encoder", settings)

    def embed_image(pixels: np.ndarray) -> np.ndarray:
        vector: np.ndarray = encoder.predict(np.stack([encoder.geometry.resize(Image.fromarray(pixels))]))[0]
        return vector

    return embed_image
