import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from fixtures.candidates import EXACT_ENGINE
from fixtures.shop import Shop, TinyModels, make_image
from jobs.models.engine import load_image_model
from jobs.models.image_model import ImageModel
from jobs.retrain.evaluate.evaluation_record import ServingMetrics
from jobs.retrain.evaluate.serving import measure_serving, probe_serving

ROUND_SECONDS = 0.01
IMAGES = [make_image(seed) for seed in range(5)]


def test_measures_speed_and_memory_of_a_separate_process(shop: Shop, tiny_models: TinyModels, tmp_path: Path) -> None:
    # Resident memory of this process, and more than the measured process needs.
    ballast = np.ones(150_000_000)
    serving = measure_serving(tiny_models.classifier, "classifier", IMAGES, shop.connections.settings, tmp_path)
    assert (serving.images, serving.failed_share) == (5, 0)
    assert serving.mean_latency_milliseconds is not None
    assert serving.mean_latency_milliseconds > 0
    assert serving.images_per_second is not None
    assert serving.images_per_second > 0
    assert serving.peak_memory_bytes is not None
    assert 50_000_000 < serving.peak_memory_bytes < ballast.nbytes


def test_crashed_process_measures_nothing(shop: Shop, tiny_models: TinyModels, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_models.classifier, tmp_path / "broken")
    (folder / "model.safetensors").write_bytes(b"")
    images = tmp_path / "images"
    images.mkdir()
    serving = measure_serving(folder, "classifier", IMAGES, shop.connections.settings, images)
    assert serving == ServingMetrics(5, None, None, None, None)


@pytest.fixture
def model(tiny_models: TinyModels) -> ImageModel:
    return load_image_model(tiny_models.classifier, "classifier", EXACT_ENGINE)


def test_undecodable_images_fail(model: ImageModel) -> None:
    serving = probe_serving(model, [*IMAGES[:3], b"no image"], ROUND_SECONDS)
    assert serving.failed_share == 0.25


def test_nan_predictions_fail(model: ImageModel) -> None:
    with torch.no_grad():
        next(model.forward.__self__.model.parameters()).fill_(torch.nan)  # type: ignore[attr-defined]
    assert probe_serving(model, IMAGES, ROUND_SECONDS).failed_share == 1


def test_metrics_of_no_images_are_none(model: ImageModel) -> None:
    serving = probe_serving(model, [], ROUND_SECONDS)
    assert (serving.mean_latency_milliseconds, serving.images_per_second, serving.failed_share) == (None, None, None)
