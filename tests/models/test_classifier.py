from collections.abc import Callable
from pathlib import Path
from random import Random
from shutil import copytree

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification

from fixtures.real_data import require_pretrained
from fixtures.shop import CATEGORIES, IMAGE_SIDE, TinyModels
from jobs.database.model_builds import Precision
from jobs.errors import PermanentError
from jobs.models.classifier import (
    CALIBRATION_FILE,
    load_classifier,
    read_categories,
    read_temperature,
    write_temperature,
)
from jobs.models.device import PRECISIONS, Device, choose_device


@pytest.fixture
def device() -> Device:
    return choose_device("cpu", "fp32")


@pytest.fixture
def copied(tiny_models: TinyModels, tmp_path: Path) -> Path:
    """Copy a classifier, which tests may then damage."""
    return Path(copytree(tiny_models.classifier, tmp_path / "classifier"))


def make_pixels(count: int, side: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(count).integers(0, 256, (count, 3, side, side), dtype=np.uint8))


def test_probabilities_match_transformers(tiny_models: TinyModels, device: Device) -> None:
    pixels = make_pixels(5, IMAGE_SIDE)
    probabilities = load_classifier(tiny_models.classifier, device).predict(pixels)

    processor = AutoImageProcessor.from_pretrained(tiny_models.classifier)
    images = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in pixels]
    model = AutoModelForImageClassification.from_pretrained(tiny_models.classifier).eval()
    with torch.inference_mode():
        expected = model(**processor(images, return_tensors="pt")).logits.softmax(-1)
    assert probabilities.dtype is torch.float32
    torch.testing.assert_close(probabilities, expected, atol=1e-5, rtol=1e-4)


def test_categories_have_the_order_of_the_outputs(tiny_models: TinyModels, device: Device) -> None:
    assert load_classifier(tiny_models.classifier, device).categories == CATEGORIES
    assert read_categories(tiny_models.classifier) == CATEGORIES


def test_more_than_ten_categories_keep_their_order(tmp_path: Path, tiny_models: TinyModels) -> None:
    names = [f"category {number}" for number in range(12)]
    Random(1).shuffle(names)
    folder = Path(copytree(tiny_models.classifier, tmp_path / "classifier"))
    model = AutoModelForImageClassification.from_pretrained(folder, num_labels=12, ignore_mismatched_sizes=True)
    model.config.id2label = dict(enumerate(names))
    model.save_pretrained(folder)
    assert read_categories(folder) == tuple(names)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_sixteen_bits_are_close_to_float32(tiny_models: TinyModels, device: Device, precision: Precision) -> None:
    pixels = make_pixels(3, IMAGE_SIDE)
    exact = load_classifier(tiny_models.classifier, device).predict(pixels)
    rounded = load_classifier(tiny_models.classifier, Device(torch.device("cpu"), PRECISIONS[precision])).predict(
        pixels
    )
    assert rounded.dtype is torch.float32
    torch.testing.assert_close(rounded, exact, atol=0.03, rtol=0)
    torch.testing.assert_close(rounded.sum(-1), torch.ones(3))


def test_a_timm_checkpoint_is_loaded_as_a_classifier(device: Device) -> None:
    classifier = load_classifier(require_pretrained(), device)
    probabilities = classifier.predict(make_pixels(2, classifier.preprocessing.geometry.crop_to))
    assert probabilities.shape == (2, 1000) == (2, len(classifier.categories))
    torch.testing.assert_close(probabilities.sum(-1), torch.ones(2))


def test_an_encoder_is_refused(tiny_models: TinyModels, device: Device) -> None:
    # Transformers alone would load it with a random head.
    with pytest.raises(PermanentError, match=r"lacks weights of CLIPForImageClassification \(classifier"):
        load_classifier(tiny_models.encoder, device)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "weights cut short": lambda folder: (folder / "model.safetensors").write_bytes(
        (folder / "model.safetensors").read_bytes()[:-100]
    ),
    "weights of junk": lambda folder: (folder / "model.safetensors").write_bytes(b"junk"),
    "no weights": lambda folder: (folder / "model.safetensors").unlink(),
    "pickled weights only": lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
    "no configuration": lambda folder: (folder / "config.json").unlink(),
    "unknown model": lambda folder: (folder / "config.json").write_text('{"model_type": "nonsense"}'),
    "a model for texts": lambda folder: (folder / "config.json").write_text('{"model_type": "clip_text_model"}'),
    "no preprocessing": lambda folder: (folder / "preprocessor_config.json").unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_checkpoint_is_refused_in_one_line(
    copied: Path, damage: Callable[[Path], object], device: Device
) -> None:
    damage(copied)
    with pytest.raises(PermanentError, match="classifier") as caught:
        load_classifier(copied, device)
    assert "\n" not in str(caught.value)


def test_the_temperature_is_read_and_divides_the_logits(
    tmp_path: Path, tiny_models: TinyModels, device: Device
) -> None:
    folder = copytree(tiny_models.classifier, tmp_path / "model")
    assert read_temperature(folder) is None
    pixels = torch.randint(0, 256, (3, 3, IMAGE_SIDE, IMAGE_SIDE), dtype=torch.uint8)
    before = load_classifier(folder, device).predict(pixels)
    write_temperature(folder, 2.0)
    assert read_temperature(folder) == 2
    after = load_classifier(folder, device).predict(pixels)
    assert torch.allclose(after, before.sqrt() / before.sqrt().sum(dim=1, keepdim=True), atol=1e-6)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"temperature": "warm"}', b'{"temperature": 0}'])
def test_an_invalid_temperature_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / CALIBRATION_FILE).write_bytes(content)
    with pytest.raises(PermanentError, match="positive"):
        read_temperature(tmp_path)
