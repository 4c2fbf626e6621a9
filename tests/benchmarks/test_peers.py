"""The peers that need no packages of their own give the same answers, or their speeds would compare nothing."""

import numpy as np
import pytest
from PIL import Image

from benchmarks.peers import dataloader, huggingface_pipelines
from benchmarks.peers.measurement import Tagged, Work
from demo.blank_checkpoints import write_blank_clip, write_blank_resnet18

SIZES = ((60, 80), (80, 60), (48, 48), (90, 70))


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Work:
    folder = tmp_path_factory.mktemp("peers")
    write_blank_resnet18(folder / "classifier", 32, ["shirt", "shoe"])
    write_blank_clip(folder / "encoder", 32, patch_side=16, width=64, dimensions=512, layers=1, texts=["a red shoe"])
    random = np.random.default_rng(0)
    photos = [folder / f"{number}.jpg" for number in range(len(SIZES))]
    for photo, (width, height) in zip(photos, SIZES, strict=True):
        blocks = random.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
        Image.fromarray(blocks).resize((width, height)).save(photo)
    return Work(folder / "classifier", folder / "encoder", photos, "fp32", workers=0)


@pytest.fixture(scope="module")
def by_pipelines(work: Work) -> Tagged:
    return huggingface_pipelines.tag(work)


def test_peers_give_the_same_answers(work: Work, by_pipelines: Tagged) -> None:
    by_dataloader = dataloader.tag(work)
    assert by_dataloader.answers.keys() == by_pipelines.answers.keys() == set(work.photos)
    for photo, answer in by_dataloader.answers.items():
        other = by_pipelines.answers[photo]
        assert answer.category == other.category
        assert answer.confidence == pytest.approx(other.confidence, abs=1e-4)
        np.testing.assert_allclose(answer.vector, other.vector, rtol=0, atol=1e-4)


def test_answers_differ_from_photo_to_photo(by_pipelines: Tagged) -> None:
    vectors = np.stack([answer.vector for answer in by_pipelines.answers.values()])
    assert vectors.shape == (len(SIZES), 512)
    assert len(np.unique(vectors.round(6), axis=0)) == len(SIZES)
