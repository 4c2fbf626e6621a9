import json
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    AutoImageProcessor,
    CLIPImageProcessor,
    ConvNextImageProcessor,
    DeiTImageProcessor,
    DonutImageProcessor,
    EfficientNetImageProcessor,
    LevitImageProcessor,
    MobileViTImageProcessor,
    Siglip2ImageProcessor,
    SiglipImageProcessor,
    ViTImageProcessor,
)

from demo.sample_catalog.products import CATEGORIES, design_product
from demo.sample_catalog.scene import render_image
from fixtures.real_data import require_pretrained
from jobs.errors import PermanentError
from jobs.images.geometry import Geometry
from jobs.models.preprocessing import Preprocessing

SIZES = [(400, 533), (533, 400), (320, 320), (97, 803), (641, 223), (50, 61), (224, 224), (1200, 1601)]
"""Width and height. Includes extreme ratios, sizes smaller than any model input or equal to one, and a large size."""
PROCESSORS = {
    "resnet": ConvNextImageProcessor(size={"shortest_edge": 224}, crop_pct=0.875, resample=3),
    "convnext of 384": ConvNextImageProcessor(size={"shortest_edge": 384}),
    "convnext without a margin": ConvNextImageProcessor(size={"shortest_edge": 64}, crop_pct=1.0),
    "clip": CLIPImageProcessor(),
    "clip of 30, crop of 45": CLIPImageProcessor(size={"shortest_edge": 30}, crop_size={"height": 45, "width": 45}),
    "vit": ViTImageProcessor(),
    "siglip": SiglipImageProcessor(size={"height": 256, "width": 256}),
    "deit": DeiTImageProcessor(),
}


@pytest.fixture(scope="module")
def image() -> Image.Image:
    product = design_product(7, "sku1", CATEGORIES[0])
    return render_image(product.garment, product.fabric, 640, Random(7))


def measure_difference(processor: Any, preprocessing: Preprocessing, image: Image.Image) -> np.ndarray:
    """Return how much the checkpoint's processor and our preprocessing differ, in levels of 255 [3, side, side]."""
    theirs = processor(image, return_tensors="pt")["pixel_values"]
    ours = preprocessing.normalize(preprocessing.geometry.apply(np.asarray(image))[None], torch.float32)
    levels: np.ndarray = ((ours - theirs).abs()[0] * torch.tensor(preprocessing.std)[:, None, None] * 255).numpy()
    return levels


@pytest.mark.parametrize("name", PROCESSORS)
def test_tensors_match_transformers(name: str, image: Image.Image, tmp_path: Path) -> None:
    PROCESSORS[name].save_pretrained(tmp_path)
    preprocessing = Preprocessing.from_checkpoint(tmp_path)
    for size in SIZES:
        # The processor resizes with torchvision, which rounds differently and differs where the filter overshoots.
        difference = measure_difference(PROCESSORS[name], preprocessing, image.resize(size))
        assert difference.max() < 8, size
        assert difference.mean() < 0.3, size


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"crop_pct": 1.0},
        {"crop_mode": "squash", "crop_pct": 0.9, "interpolation": "bilinear"},
        {"crop_mode": "squash", "crop_pct": 1.0},
        {"input_size": [3, 97, 97], "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.4, 0.3]},
    ],
    ids=repr,
)
def test_tensors_match_timm(changes: dict[str, Any], image: Image.Image, tmp_path: Path) -> None:
    folder = change_timm_checkpoint(tmp_path, changes)
    processor = AutoImageProcessor.from_pretrained(folder)
    preprocessing = Preprocessing.from_checkpoint(folder)
    for size in SIZES:
        difference = measure_difference(processor, preprocessing, image.resize(size))
        assert difference.max() < 8, size
        assert difference.mean() < 0.25, size


def change_timm_checkpoint(folder: Path, changes: dict[str, Any]) -> Path:
    """Copy the configuration of the pretrained checkpoint, with changes to its preprocessing."""
    config = json.loads((require_pretrained() / "config.json").read_text())
    config["pretrained_cfg"] |= changes
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    ("processor", "words"),
    [
        (CLIPImageProcessor(resample=1), "only bilinear and bicubic"),
        (CLIPImageProcessor(do_center_crop=False), "only square inputs"),
        (CLIPImageProcessor(crop_size={"height": 224, "width": 100}), "cannot be reproduced"),
        (CLIPImageProcessor(do_rescale=False), "cannot be reproduced"),
        (CLIPImageProcessor(do_normalize=False), "cannot be reproduced"),
        (CLIPImageProcessor(rescale_factor=1 / 127.5), "cannot be reproduced"),
        (ViTImageProcessor(size={"height": 224, "width": 112}), "only square inputs"),
        (ViTImageProcessor(do_resize=False), "cannot be reproduced"),
        (DonutImageProcessor(), "only square inputs"),
        (Siglip2ImageProcessor(), "only square inputs"),
        (CLIPImageProcessor(image_mean=[]), "no mean and standard deviation"),
        (MobileViTImageProcessor(), "cannot be reproduced"),
        (EfficientNetImageProcessor(), "cannot be reproduced"),
        (LevitImageProcessor(), "cannot be reproduced"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else None,
)
def test_unsupported_preprocessing_is_refused(processor: Any, words: str, tmp_path: Path) -> None:
    processor.save_pretrained(tmp_path)
    with pytest.raises(PermanentError, match=words) as caught:
        Preprocessing.from_checkpoint(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [{"crop_rounding": "even"}, {"interpolation": "bilinear"}, {"resize_to": 113}, {"keep_aspect": False}],
    ids=repr,
)
def test_a_slightly_different_geometry_does_not_agree(changes: dict[str, Any], tmp_path: Path) -> None:
    """Change one parameter at a time. A crop of 97 from 112 pixels starts at half a pixel, so rounding matters."""
    processor = CLIPImageProcessor(size={"shortest_edge": 112}, crop_size={"height": 97, "width": 97})
    processor.save_pretrained(tmp_path)
    preprocessing = Preprocessing.from_checkpoint(tmp_path)
    assert preprocessing.agrees_with(processor)
    assert not replace(preprocessing, geometry=replace(preprocessing.geometry, **changes)).agrees_with(processor)


def test_nan_values_do_not_agree(tmp_path: Path) -> None:
    PROCESSORS["clip"].save_pretrained(tmp_path)
    preprocessing = Preprocessing.from_checkpoint(tmp_path)
    assert not replace(preprocessing, mean=(float("nan"), 0.5, 0.5)).agrees_with(PROCESSORS["clip"])


@pytest.mark.parametrize("changes", [{"crop_mode": "border"}, {"input_size": [3, 224, 112]}], ids=repr)
def test_unsupported_timm_preprocessing_is_refused(changes: dict[str, Any], tmp_path: Path) -> None:
    folder = change_timm_checkpoint(tmp_path, changes)
    with pytest.raises(PermanentError, match="cannot be reproduced"):
        Preprocessing.from_checkpoint(folder)


def test_a_checkpoint_without_preprocessing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PermanentError, match="has no image preprocessing") as caught:
        Preprocessing.from_checkpoint(tmp_path)
    assert "\n" not in str(caught.value)


def test_input_pixels_are_not_changed_and_may_be_read_only(image: Image.Image) -> None:
    pixels = np.array(image)
    before = pixels.copy()
    pixels.flags.writeable = False
    square = Geometry(resize_to=64, crop_to=56, keep_aspect=True, interpolation="bilinear").apply(pixels)
    assert (square.dtype, square.shape) == (torch.uint8, (3, 56, 56))
    assert (pixels == before).all()


def test_computing_only_the_crop_gives_the_same_pixels(image: Image.Image) -> None:
    geometry = Geometry(resize_to=97, crop_to=64, keep_aspect=True, interpolation="bicubic")
    for size in SIZES:
        resized = image.resize(size)
        width, height = (97 * side // min(size) for side in size)
        left, top = (width - 64) // 2, (height - 64) // 2
        whole = resized.resize((width, height), Image.Resampling.BICUBIC).crop((left, top, left + 64, top + 64))
        assert np.abs(np.asarray(whole, dtype=int) - geometry.resize(resized)).max() <= 2, size


def test_normalizing_gives_the_dtype_of_the_forward_pass() -> None:
    preprocessing = Preprocessing(Geometry(2, 2, True, "bilinear"), (0.5, 0.25, 0.0), (0.5, 0.25, 1.0))
    white = torch.full((1, 3, 2, 2), 255, dtype=torch.uint8)
    normal = preprocessing.normalize(white, torch.bfloat16)
    assert normal.dtype is torch.bfloat16
    assert normal[0, :, 0, 0].tolist() == [1.0, 3.0, 1.0]
    assert (white == 255).all()


def test_the_record_of_a_preprocessing_is_json(tmp_path: Path) -> None:
    PROCESSORS["clip"].save_pretrained(tmp_path)
    record = Preprocessing.from_checkpoint(tmp_path).as_record()
    assert json.loads(json.dumps(record))["geometry"]["resize_to"] == 224
