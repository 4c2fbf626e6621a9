import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import CLIPImageProcessor, ConvNextImageProcessor, ViTImageProcessor

from jobs.images.geometry import Geometry
from jobs.models.preprocessing import Preprocessing
from jobs.retrain.train.augmentation import enlarge, read_whole_photos, write_whole_photos

TALL = np.zeros((400, 300, 3), dtype=np.uint8)
TALL[:40] = (255, 0, 0)
TALL[-40:] = (0, 0, 255)
"""A photo with a red end and a blue one, which the middle of it leaves out."""
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
BASES = [*PROCESSORS, "timm", "timm that leaves it to Transformers"]


def write_config(folder: Path, **fields: Any) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(fields), encoding="utf-8")
    return folder


def make_base(folder: Path, name: str) -> Path:
    """The files of a checkpoint that say how its photos are prepared."""
    labels = {"num_classes": 2, "label_names": ["hat", "shoe"]}
    if name == "timm":
        return write_config(folder, model_type="timm_wrapper", pretrained_cfg=TIMM, **labels)
    if name == "timm that leaves it to Transformers":
        write_config(folder, model_type="timm_wrapper", **labels)
        PROCESSORS["resnet"].save_pretrained(folder)
        return folder
    PROCESSORS[name].save_pretrained(write_config(folder, model_type=name))
    return folder


def make_output(base: Path, folder: Path) -> Path:
    """What weights that were trained from the base are saved with, before anyone says how photos are prepared."""
    return write_config(folder, **json.loads((base / "config.json").read_text(encoding="utf-8")))


@pytest.mark.parametrize("name", BASES)
def test_what_is_stored_is_what_was_trained_with(name: str, tmp_path: Path) -> None:
    """Reading it back also compares it with the tensors that Transformers makes of it."""
    base = make_base(tmp_path / "base", name)
    whole = read_whole_photos(base)
    output = make_output(base, tmp_path / "output")
    write_whole_photos(base, output)
    assert Preprocessing.from_checkpoint(output) == whole
    assert read_whole_photos(output) == whole


@pytest.mark.parametrize("name", BASES)
def test_side_and_channels_are_those_of_the_base(name: str, tmp_path: Path) -> None:
    own = Preprocessing.from_checkpoint(make_base(tmp_path / "base", name))
    whole = read_whole_photos(tmp_path / "base")
    assert (whole.geometry.crop_to, whole.geometry.interpolation) == (own.geometry.crop_to, own.geometry.interpolation)
    assert (whole.mean, whole.std) == (own.mean, own.std)


def test_both_ends_of_a_tall_photo_are_seen(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", "resnet")
    middle = Preprocessing.from_checkpoint(base).geometry.apply(TALL)
    assert not middle.any()
    for geometry in (read_whole_photos(base).geometry, enlarge(read_whole_photos(base).geometry)):
        pixels = geometry.apply(TALL)
        assert pixels[:, 0, 0].tolist() == [255, 0, 0]
        assert pixels[:, -1, -1].tolist() == [0, 0, 255]


def test_timm_is_told_of_no_other_size(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", "timm")
    output = make_output(base, tmp_path / "output")
    write_whole_photos(base, output)
    stored = json.loads((output / "config.json").read_text(encoding="utf-8"))["pretrained_cfg"]
    assert not [name for name in stored if name.startswith("test_")]


def test_crops_are_taken_from_a_larger_square() -> None:
    assert enlarge(Geometry(224, 224, False, "bicubic")) == Geometry(256, 256, False, "bicubic")
    assert enlarge(Geometry(56, 56, False, "bilinear")) == Geometry(64, 64, False, "bilinear")
