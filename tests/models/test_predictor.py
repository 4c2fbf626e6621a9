"""Run both models together, as one graph and as two graphs."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fixtures.shop import TinyModels
from jobs.database.model_versions import ModelKind
from jobs.models.engine import EngineSettings
from jobs.models.image_model import write_build
from jobs.models.predictor import Predictor, load_predictor
from jobs.models.torch_model import describe_checkpoint
from jobs.retrain.optimize.convert import convert_checkpoint, save_graph

SETTINGS = EngineSettings("cpu", "fp32")


@pytest.fixture(scope="module")
def graphs(tiny_models: TinyModels, tmp_path_factory: pytest.TempPathFactory) -> dict[ModelKind, Path]:
    folders: dict[ModelKind, Path] = {}
    pairs: list[tuple[ModelKind, Path]] = [("classifier", tiny_models.classifier), ("encoder", tiny_models.encoder)]
    for kind, checkpoint in pairs:
        folder = tmp_path_factory.mktemp("graphs") / kind
        shutil.copytree(checkpoint, folder)
        write_build(folder, replace(describe_checkpoint(checkpoint, kind), engine="openvino"))
        save_graph(convert_checkpoint(checkpoint, kind), folder)
        folders[kind] = folder
    return folders


def make_images(predictor: Predictor, count: int) -> list[tuple[np.ndarray, ...]]:
    random = np.random.default_rng(3)
    sides = [geometry.crop_to for geometry in predictor.geometries]
    return [tuple(random.integers(0, 256, (side, side, 3), dtype=np.uint8) for side in sides) for _ in range(count)]


def test_a_shared_graph_gives_both_predictions(graphs: dict[ModelKind, Path], tiny_models: TinyModels) -> None:
    together = load_predictor(graphs["classifier"], graphs["encoder"], SETTINGS)
    assert together.shared is not None
    images = make_images(together, 11)
    both = together.predict(images, tag=True, embed=True)
    in_torch = load_predictor(tiny_models.classifier, tiny_models.encoder, SETTINGS)
    for other in (replace(together, shared=None), in_torch):
        assert other.shared is None
        answers = other.predict(images, tag=True, embed=True)
        assert np.allclose(both.probabilities, answers.probabilities, atol=1e-4)  # type: ignore[arg-type]
        assert np.allclose(both.vectors, answers.vectors, atol=1e-4)  # type: ignore[arg-type]


def test_only_the_requested_models_run(graphs: dict[ModelKind, Path]) -> None:
    predictor = load_predictor(graphs["classifier"], graphs["encoder"], SETTINGS)
    images = make_images(predictor, 3)
    tags, vectors = (predictor.predict(images, tag=tag, embed=not tag) for tag in (True, False))
    assert tags.vectors is None
    assert vectors.probabilities is None
    assert tags.probabilities is not None
    assert vectors.vectors is not None
    assert tags.probabilities.shape == (3, len(predictor.categories))
    assert len(vectors.vectors) == 3


def test_a_graph_and_a_torch_model_work_together(graphs: dict[ModelKind, Path], tiny_models: TinyModels) -> None:
    mixed = load_predictor(graphs["classifier"], tiny_models.encoder, SETTINGS)
    assert mixed.shared is None
    answers = mixed.predict(make_images(mixed, 2), tag=True, embed=True)
    assert answers.probabilities is not None
    assert answers.vectors is not None
