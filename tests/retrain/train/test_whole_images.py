import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import CLIPImageProcessor, ConvNextImageProcessor, ViTImageProcessor

from jobs.images.geometry import Geometry
from jobs.models.preprocessing import Preprocessing
from jobs.retrain.train.whole_images import enlarge, read_whole_images, write_whole_images

TALL = np.zeros((400, 300, 3), dtype=np.uint8)
TALL[:40] = (255, 0, 0)
TALL[-40:] = (0, 0, 255)
"""An image with a red and a blue end, both outside its center crop."""
PROCESSORS = {
    "resnet": ConvNextImageProcessor(size={"shortest_edge": 224}, crop_pct=0.875),
    "clip": CLIPImageProcessor(),
    "vit": ViTImageProcessor(size={"height": 96, "width": 96}, image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6]),
}
TIMM: dict[str, Any] = {
    "input_size": [3, 224, 224],
    "crop_pct": 0.875,
    "crop_mode": "center",
    "interpolation": "bilinear",
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
    "test_input_size": [3, 288, 288],
    "test_crop_pct": 0.95,
}
BASES = [*PROCESSORS, "timm", "timm with a Transformers processor"]


def write_config(folder: Path, **fields: Any) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(fields), encoding="utf-8")
    return folder


def make_base(folder: Path, name: str) -> Path:
    """Write the files of a checkpoint that define its preprocessing."""
    labels = {"num_classes": 2, "label_names": ["hat", "shoe"]}
    if name == "timm":
        return write_config(folder, model_type="timm_wrapper", pretrained_cfg=TIMM, **labels)
    if name == "timm with a Transformers processor":
        write_config(folder, model_type="timm_wrapper", **labels)
        PROCESSORS["resnet"].save_pretrained(folder)
        return folder
    PROCESSORS[name].save_pretrained(write_config(folder, model_type=name))
    return folder


def make_output(base: Path, folder: Path) -> Path:
    """Write the configuration that trained weights are saved with, before the preprocessing is written."""
    return write_config(folder, **json.loads((base / "config.json").read_text(encoding="utf-8")))


@pytest.mark.parametrize("name", BASES)
def test_the_stored_preprocessing_is_that_of_the_training(name: str, tmp_path: Path) -> None:
    """Reading it back also compares it with the tensors of Transformers."""
    base = make_base(tmp_path / "base", name)
    whole = read_whole_images(base)
    output = make_output(base, tmp_path / "output")
    write_whole_images(base, output)
    assert Preprocessing.from_checkpoint(output) == whole
    assert read_whole_images(output) == whole


@pytest.mark.parametrize("name", BASES)
def test_side_and_normalization_are_those_of_the_base(name: str, tmp_path: Path) -> None:
    own = Preprocessing.from_checkpoint(make_base(tmp_path / "base", name))
    whole = read_whole_images(tmp_path / "base")
    assert (whole.geometry.crop_to, whole.geometry.interpolation) == (own.geometry.crop_to, own.geometry.interpolation)
    assert (whole.mean, whole.std) == (own.mean, own.std)


def test_both_ends_of_a_tall_image_are_kept(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", "resnet")
    center = Preprocessing.from_checkpoint(base).geometry.apply(TALL)
    assert not center.any()
    for geometry in (read_whole_images(base).geometry, enlarge(read_whole_images(base).geometry)):
        pixels = geometry.apply(TALL)
        assert pixels[:, 0, 0].tolist() == [255, 0, 0]
        assert pixels[:, -1, -1].tolist() == [0, 0, 255]


def test_the_test_sizes_of_timm_are_removed(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", "timm")
    output = make_output(base, tmp_path / "output")
    write_whole_images(base, output)
    stored = json.loads((output / "config.json").read_text(encoding="utf-8"))["pretrained_cfg"]
    assert not [name for name in stored if name.startswith("test_")]


def test_random_crops_are_taken_from_a_larger_square() -> None:
    assert enlarge(Geometry(224, 224, False, "bicubic")) == Geometry(256, 256, False, "bicubic")
    assert enlarge(Geometry(56, 56, False, "bilinear")) == Geometry(64, 64, False, "bilinear")
