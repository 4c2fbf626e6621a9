"""Peers that need no packages of their own make the same predictions; otherwise their speeds could not be compared."""

import numpy as np
import pytest
from PIL import Image

from benchmarks.peers import dataloader, huggingface_pipelines
from benchmarks.peers.measurement import TimedPredictions, Work
from demo.blank_checkpoints import write_blank_clip, write_blank_resnet18

SIZES = ((60, 80), (80, 60), (48, 48), (90, 70))


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Work:
    folder = tmp_path_factory.mktemp("peers")
    write_blank_resnet18(folder / "classifier", 32, ["shirt", "shoe"])
    write_blank_clip(folder / "encoder", 32, patch_side=16, width=64, dimensions=512, layers=1, texts=["a red shoe"])
    random = np.random.default_rng(0)
    images = [folder / f"{number}.jpg" for number in range(len(SIZES))]
    for image, (width, height) in zip(images, SIZES, strict=True):
        blocks = random.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
        Image.fromarray(blocks).resize((width, height)).save(image)
    return Work(folder / "classifier", folder / "encoder", images, "fp32", workers=0)


@pytest.fixture(scope="module")
def by_pipelines(work: Work) -> TimedPredictions:
    return huggingface_pipelines.tag(work)


def test_peers_make_the_same_predictions(work: Work, by_pipelines: TimedPredictions) -> None:
    by_dataloader = dataloader.tag(work)
    assert by_dataloader.predictions.keys() == by_pipelines.predictions.keys() == set(work.images)
    for image, prediction in by_dataloader.predictions.items():
        other = by_pipelines.predictions[image]
        assert prediction.category == other.category
        assert prediction.confidence == pytest.approx(other.confidence, abs=1e-4)
        np.testing.assert_allclose(prediction.vector, other.vector, rtol=0, atol=1e-4)


def test_predictions_differ_from_image_to_image(by_pipelines: TimedPredictions) -> None:
    vectors = np.stack([prediction.vector for prediction in by_pipelines.predictions.values()])
    assert vectors.shape == (len(SIZES), 512)
    assert len(np.unique(vectors.round(6), axis=0)) == len(SIZES)
