"""Stage 5: resized photos to probabilities and vectors, a batch at a time."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jobs.images.geometry import Geometry
from jobs.models.image_model import EngineSettings, ImageModel, load_image_model

if TYPE_CHECKING:
    from jobs.models.openvino_model import Graph, OpenVinoModel

Inputs = tuple[np.ndarray, ...]
"""One photo for each of the geometries of a `Predictor`: uint8 pixels [side, side, 3]."""


@dataclass(frozen=True)
class Answers:
    """Float32 arrays with a row for each photo, or None for what was not asked."""

    probabilities: np.ndarray | None
    vectors: np.ndarray | None


@dataclass(frozen=True)
class Predictor:
    """An encoder, and a classifier where the catalog has one; safe to call from several threads.

    ``shared`` computes both from one input, where they are graphs of one geometry and precision.
    """

    classifier: ImageModel | None
    encoder: ImageModel
    shared: "SharedGraph | None" = None

    @property
    def models(self) -> tuple[ImageModel, ...]:
        """Those that there are, the encoder last."""
        return (self.classifier, self.encoder) if self.classifier else (self.encoder,)

    @property
    def categories(self) -> tuple[str, ...]:
        """The names of the classifier's outputs, in order; none without one."""
        return self.classifier.categories if self.classifier else ()

    @property
    def geometries(self) -> tuple[Geometry, ...]:
        """How a photo has to be resized, once for each way that differs: the classifier's first, the encoder's last."""
        return tuple(dict.fromkeys(model.geometry for model in self.models))

    @property
    def largest_side(self) -> int:
        """The longest resize target of the models, in pixels."""
        return max(geometry.resize_to for geometry in self.geometries)

    @property
    def batch_size(self) -> int:
        """Photos that suit all models."""
        return max(model.batch_size for model in self.models)

    @property
    def passes(self) -> int:
        """Batches that are best asked for side by side."""
        return max(model.passes for model in self.models)

    def predict(self, photos: Sequence[Inputs], *, tag: bool, embed: bool) -> Answers:
        """Run one model or both on photos, at least one; ``tag`` needs a classifier."""
        if tag and embed and self.shared:
            return self.shared.predict(_stack(photos, 0))
        return Answers(
            probabilities=self.classifier.predict(_stack(photos, 0)) if tag and self.classifier else None,
            vectors=self.encoder.predict(_stack(photos, -1)) if embed else None,
        )


@dataclass(frozen=True)
class SharedGraph:
    """Both models in one graph of OpenVINO."""

    graph: "Graph"
    classifier: "OpenVinoModel"
    encoder: "OpenVinoModel"

    def predict(self, pixels: np.ndarray) -> Answers:
        """Turn uint8 pixels [n, side, side, 3] into the answers of both."""
        from jobs.models.openvino_model import finish

        logits, vectors = self.graph.infer(pixels)
        return Answers(finish(self.classifier.build, logits), finish(self.encoder.build, vectors))


def load_predictor(classifier: Path | None, encoder: Path, settings: EngineSettings) -> Predictor:
    """Load the models as they are served.

    Raises:
        PermanentError: a folder holds no such model, or this machine cannot compute it.
    """
    tagger = load_image_model(classifier, "classifier", settings) if classifier else None
    embedder = load_image_model(encoder, "encoder", settings)
    return Predictor(tagger, embedder, _share_graph(tagger, embedder) if tagger else None)


def _share_graph(classifier: ImageModel, encoder: ImageModel) -> SharedGraph | None:
    """One graph for two models that take the same pixels and compute their float layers in the same precision."""
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
    """The three likeliest categories with their probabilities, the best first; of equal ones the first in order."""
    best = np.argsort(-probabilities, kind="stable")[:3]
    return tuple((categories[index], float(probabilities[index])) for index in best)


def _stack(photos: Sequence[Inputs], position: int) -> np.ndarray:
    return np.stack([photo[position] for photo in photos])
