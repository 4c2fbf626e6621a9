"""Classifiers learn from whole photos: the middle of a tall one leaves out hems and sleeves, by which garments differ.

The reason and the figures: docs/decisions/whole-photos.md.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from jobs.models.geometry import Geometry
from jobs.models.preprocessing import PILLOW_NAMES, Preprocessing
from jobs.scratch import open_scratch

CONFIG_FILE = "config.json"
ENLARGEMENT = 8 / 7
"""Side of the photos that random crops are taken from, as a multiple of the model's: 256 px for 224."""


def read_whole_photos(base: Path) -> Preprocessing:
    """The channels and the side of what a checkpoint asks for, of the whole photo pressed into a square.

    Raises:
        PermanentError: the checkpoint carries no preprocessing, or one that we cannot reproduce, as it is or like this.
    """
    with open_scratch() as parent:
        folder = parent / base.name
        folder.mkdir()
        shutil.copy(base / CONFIG_FILE, folder)
        write_whole_photos(base, folder)
        return Preprocessing.from_checkpoint(folder)


def enlarge(whole: Geometry) -> Geometry:
    """A whole photo with more pixels, for random crops that need not be blown up."""
    side = round(whole.crop_to * ENLARGEMENT)
    return replace(whole, resize_to=side, crop_to=side)


def write_whole_photos(base: Path, folder: Path) -> None:
    """Let a checkpoint see whole photos, otherwise as its base; in whichever file AutoImageProcessor looks for it."""
    own = Preprocessing.from_checkpoint(base)
    config_file = folder / CONFIG_FILE
    config = json.loads(config_file.read_text(encoding="utf-8"))
    if "pretrained_cfg" in config:
        config["pretrained_cfg"] = _describe_for_timm(config["pretrained_cfg"], own)
        config_file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    else:
        _make_processor(own).save_pretrained(folder)


def _describe_for_timm(config: Mapping[str, Any], own: Preprocessing) -> dict[str, Any]:
    """Timm's words, as in https://github.com/huggingface/pytorch-image-models/blob/main/timm/data/config.py."""
    side = own.geometry.crop_to
    # Other ones that a model may be tested with.
    kept = {name: value for name, value in config.items() if not name.startswith("test_")}
    return kept | {"input_size": [3, side, side], "crop_pct": 1.0, "crop_mode": "squash"}


def _make_processor(own: Preprocessing) -> Any:
    from transformers import ViTImageProcessor

    geometry = own.geometry
    return ViTImageProcessor(
        size={"height": geometry.crop_to, "width": geometry.crop_to},
        resample={name: number for number, name in PILLOW_NAMES.items()}[geometry.interpolation],
        image_mean=list(own.mean),
        image_std=list(own.std),
    )
