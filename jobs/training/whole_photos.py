"""Classifiers learn from whole photos: the middle of a tall one leaves out hems and sleeves, by which garments differ.

The reason and the figures: docs/decisions/whole-photos.md.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from jobs.models.preprocessing import PILLOW_NAMES, Geometry, Preprocessing

ENLARGEMENT = 8 / 7
"""Side of the photos that random crops are taken from, as a multiple of the model's: 256 px for 224."""


def read_whole_photos(base: Path) -> Preprocessing:
    """The channels and the side of what a checkpoint asks for, of the whole photo pressed into a square.

    Raises:
        PermanentError: the checkpoint carries no preprocessing, or one that we cannot reproduce exactly.
    """
    preprocessing = Preprocessing.from_checkpoint(base)
    side = preprocessing.geometry.crop_to
    return replace(preprocessing, geometry=replace(preprocessing.geometry, resize_to=side, keep_aspect=False))


def enlarge(geometry: Geometry) -> Geometry:
    """The same view of a photo with more pixels, for random crops that need not be blown up."""
    side = round(geometry.crop_to * ENLARGEMENT)
    return replace(geometry, resize_to=side, crop_to=side)


def write_whole_photos(base: Path, folder: Path) -> None:
    """Let a checkpoint see whole photos, otherwise as its base; in whichever file AutoImageProcessor looks for it."""
    preprocessing = read_whole_photos(base)
    config_file = folder / "config.json"
    config = json.loads(config_file.read_text(encoding="utf-8"))
    if config["model_type"] == "timm_wrapper":
        config["pretrained_cfg"] |= _describe_for_timm(preprocessing)
        config_file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    else:
        _make_processor(preprocessing).save_pretrained(folder)


def _describe_for_timm(preprocessing: Preprocessing) -> dict[str, Any]:
    """Timm's words, as in https://github.com/huggingface/pytorch-image-models/blob/main/timm/data/config.py."""
    geometry = preprocessing.geometry
    return {
        "input_size": [3, geometry.crop_to, geometry.crop_to],
        "crop_pct": 1.0,
        "crop_mode": "squash",
        "interpolation": geometry.interpolation,
        "mean": list(preprocessing.mean),
        "std": list(preprocessing.std),
    }


def _make_processor(preprocessing: Preprocessing) -> Any:
    from transformers import ViTImageProcessor

    geometry = preprocessing.geometry
    return ViTImageProcessor(
        size={"height": geometry.crop_to, "width": geometry.crop_to},
        resample={name: number for number, name in PILLOW_NAMES.items()}[geometry.interpolation],
        image_mean=list(preprocessing.mean),
        image_std=list(preprocessing.std),
    )
