"""The live models, loaded and tried, as the batchers ask them."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jobs.connections import Connections
from jobs.database.model_versions import LiveEncoder, read_model_version
from jobs.images.geometry import Geometry
from jobs.models.image_model import EngineSettings, ImageModel, load_image_model
from jobs.models.predictor import rank_categories
from jobs.models.registry import fetch_checkpoint
from jobs.search.encoders import TextEmbedder, load_text_embedder
from jobs.serve.client import Classification, EmbeddedQuery, RankedCategory

log = logging.getLogger(__name__)

TEXT_BATCH_SIZE = 8
PHOTOS_IN_A_GRAPH = 1
"""A graph takes as long for eight photos when seven are blank; for one it gives as many a second, and eight times
sooner (docs/decisions/query-service.md)."""


@dataclass(frozen=True)
class PhotoPasses:
    """How many photos a model is asked for at once: half of a batch of the nightly run, which nobody waits for."""

    model: ImageModel

    @property
    def batch_size(self) -> int:
        """Of one pass."""
        return max(1, self.model.batch_size // 2)

    @property
    def passes(self) -> int:
        """Side by side."""
        return self.model.passes

    @property
    def geometry(self) -> Geometry:
        """How photos are resized for it."""
        return self.model.geometry


@dataclass(frozen=True)
class ServedClassifier(PhotoPasses):
    """Photos of uint8 pixels [side, side, 3] become tags."""

    model_version_id: int

    def answer(self, photos: Sequence[np.ndarray]) -> list[Classification]:
        """One pass."""
        return [self._classify(row) for row in self.model.predict(np.stack(photos))]

    def _classify(self, probabilities: np.ndarray) -> Classification:
        top_3 = tuple(RankedCategory(*ranked) for ranked in rank_categories(probabilities, self.model.categories))
        return Classification(self.model_version_id, top_3[0].category, top_3[0].confidence, top_3)


@dataclass(frozen=True)
class ServedImageTower(PhotoPasses):
    """Photos of uint8 pixels [side, side, 3] become vectors."""

    live: LiveEncoder

    def answer(self, photos: Sequence[np.ndarray]) -> list[EmbeddedQuery]:
        """One pass."""
        return _name_vectors(self.live, self.model.predict(np.stack(photos)))


@dataclass(frozen=True)
class ServedTextTower:
    """Texts become vectors."""

    embedder: TextEmbedder
    passes: int
    live: LiveEncoder
    batch_size: int = TEXT_BATCH_SIZE

    def answer(self, texts: Sequence[str]) -> list[EmbeddedQuery]:
        """One pass."""
        return _name_vectors(self.live, self.embedder.embed(texts))


@dataclass(frozen=True)
class ServedEncoder:
    """Both towers of one version."""

    live: LiveEncoder
    images: ServedImageTower
    texts: ServedTextTower


def load_served_classifier(connections: Connections, model_version_id: int) -> ServedClassifier:
    """Load a classifier and have its first pass, which takes longer than the others.

    Raises:
        PermanentError: the checkpoint is not what was registered, or this machine cannot compute it.
        RetryableError: database or bucket away.
    """
    served = ServedClassifier(_load_image_model(connections, model_version_id), model_version_id)
    served.answer([_make_blank_photo(served.geometry)])
    log.info("classifier %d answers now (%s)", model_version_id, served.model.description)
    return served


def load_served_encoder(connections: Connections, live: LiveEncoder) -> ServedEncoder:
    """Load both towers of an encoder; raises as `load_served_classifier` does."""
    # Here, for importing torch takes seconds, and the service answers its health before.
    from jobs.models.device import choose_device, prepare_passes

    images = ServedImageTower(_load_image_model(connections, live.model_version_id), live)
    images.answer([_make_blank_photo(images.geometry)])
    embedder = load_text_embedder(connections, live.model_version_id)
    texts = ServedTextTower(embedder, prepare_passes(choose_device(connections.settings.compute.device, "fp32")), live)
    texts.answer(["a first text"])
    log.info("encoder %d answers now for space %d (%s)", live.model_version_id, live.space_id, images.model.description)
    return ServedEncoder(live, images, texts)


def _load_image_model(connections: Connections, model_version_id: int) -> ImageModel:
    settings = connections.settings
    with connections.engine.connect() as connection:
        version = read_model_version(connection, model_version_id)
    folder = fetch_checkpoint(connections.store, version, settings.locations.model_cache)
    how = EngineSettings(settings.compute.device, settings.compute.precision, pass_size=PHOTOS_IN_A_GRAPH)
    return load_image_model(folder, version.kind, how)


def _make_blank_photo(geometry: Geometry) -> np.ndarray:
    return np.zeros((geometry.crop_to, geometry.crop_to, 3), dtype=np.uint8)


def _name_vectors(live: LiveEncoder, vectors: np.ndarray) -> list[EmbeddedQuery]:
    return [EmbeddedQuery(live.model_version_id, live.space_id, tuple(vector.tolist())) for vector in vectors]
