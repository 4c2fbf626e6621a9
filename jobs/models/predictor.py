"""Stage 5, predict: turn batches of resized images into probabilities and vectors."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jobs.database.model_builds import DeviceClass
from jobs.images.geometry import Geometry
from jobs.models.engine import EngineSettings, load_image_model
from jobs.models.image_model import ImageModel, finish

if TYPE_CHECKING:
    from jobs.models.openvino_model import Graph, OpenVinoModel

ModelInputs = tuple[np.ndarray, ...]
"""One image, resized once for each geometry of a `Predictor`: uint8 pixels [side, side, 3]."""


@dataclass(frozen=True)
class Predictions:
    """Float32 arrays with one row per image, or None for a model that did not run."""

    probabilities: np.ndarray | None
    vectors: np.ndarray | None


@dataclass(frozen=True)
class Predictor:
    """Run an encoder and, if the catalog has one, a classifier. Safe to call from several threads.

    ``shared`` runs both models on one input. It is None unless both are OpenVINO graphs of equal geometry and float
    precision.
    """

    classifier: ImageModel | None
    encoder: ImageModel
    shared: "SharedGraph | None" = None

    @property
    def models(self) -> tuple[ImageModel, ...]:
        """All models, the encoder last."""
        return (self.classifier, self.encoder) if self.classifier else (self.encoder,)

    @property
    def categories(self) -> tuple[str, ...]:
        """The categories in the order of the classifier's outputs; empty without a classifier."""
        return self.classifier.categories if self.classifier else ()

    @property
    def geometries(self) -> tuple[Geometry, ...]:
        """The distinct geometries of the models: the classifier's first, the encoder's last."""
        return tuple(dict.fromkeys(model.geometry for model in self.models))

    @property
    def largest_side(self) -> int:
        """The longest side that any model resizes to, in pixels."""
        return max(geometry.resize_to for geometry in self.geometries)

    @property
    def device_class(self) -> DeviceClass:
        """The class of the device that runs the encoder."""
        return self.encoder.device_class

    @property
    def batch_size(self) -> int:
        """The recommended number of images per call, for all models."""
        return max(model.batch_size for model in self.models)

    @property
    def passes(self) -> int:
        """The recommended number of concurrent calls."""
        return max(model.passes for model in self.models)

    def predict(self, images: Sequence[ModelInputs], *, tag: bool, embed: bool) -> Predictions:
        """Run one or both models on at least one image. ``tag`` requires a classifier."""
        if tag and embed and self.shared:
            return self.shared.predict(_stack(images, 0))
        return Predictions(
            probabilities=self.classifier.predict(_stack(images, 0)) if tag and self.classifier else None,
            vectors=self.encoder.predict(_stack(images, -1)) if embed else None,
        )


@dataclass(frozen=True)
class SharedGraph:
    """Run both models in one OpenVINO graph."""

    graph: "Graph"
    classifier: "OpenVinoModel"
    encoder: "OpenVinoModel"

    def predict(self, pixels: np.ndarray) -> Predictions:
        """Turn uint8 pixels [n, side, side, 3] into the predictions of both models."""
        logits, vectors = self.graph.infer(pixels)
        return Predictions(finish(self.classifier.build, logits), finish(self.encoder.build, vectors))


def load_predictor(classifier: Path | None, encoder: Path, settings: EngineSettings) -> Predictor:
    """Load the models as they are served.

    Raises:
        PermanentError: a folder holds no such model, or this machine cannot run it.
    """
    tagger = load_image_model(classifier, "classifier", settings) if classifier else None
    embedder = load_image_model(encoder, "encoder", settings)
    return Predictor(tagger, embedder, _share_graph(tagger, embedder) if tagger else None)


def _share_graph(classifier: ImageModel, encoder: ImageModel) -> SharedGraph | None:
    """Compile both models as one graph if they take the same pixels and their float layers have equal precision."""
    if classifier.geometry != encoder.geometry or "torch" in {classifier.engine, encoder.engine}:
        return None
    from jobs.models.openvino_model import OpenVinoModel, compile_graphs

    assert isinstance(classifier, OpenVinoModel)
    assert isinstance(encoder, OpenVinoModel)
    precisions = {classifier.build.rest_precision, encoder.build.rest_precision}
    if len(precisions) > 1:
        return None
    graph = compile_graphs([classifier.folder, encoder.folder], precisions.pop())
    return SharedGraph(graph, classifier, encoder)


def rank_categories(probabilities: np.ndarray, categories: Sequence[str]) -> tuple[tuple[str, float], ...]:
    """Return the three most probable categories with their probabilities, best first. Ties keep the category order."""
    best = np.argsort(-probabilities, kind="stable")[:3]
    return tuple((categories[index], float(probabilities[index])) for index in best)


def _stack(images: Sequence[ModelInputs], position: int) -> np.ndarray:
    return np.stack([image[position] for image in images])
