"""Train on whole images, squeezed into a square, instead of center crops."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from jobs.images.geometry import Geometry
from jobs.models.preprocessing import PILLOW_NAMES, Preprocessing
from jobs.scratch import open_scratch

CONFIG_FILE = "config.json"
ENLARGEMENT = 8 / 7
"""Enlargement of images before random cropping, relative to the model's input: 256 px for an input of 224."""


def read_whole_images(base: Path) -> Preprocessing:
    """Return the preprocessing of a checkpoint, changed to squash the whole image into its square input.

    Raises:
        PermanentError: the checkpoint has no preprocessing, or it is not supported, as stored or for whole images.
    """
    with open_scratch() as parent:
        folder = parent / base.name
        folder.mkdir()
        shutil.copy(base / CONFIG_FILE, folder)
        write_whole_images(base, folder)
        return Preprocessing.from_checkpoint(folder)


def enlarge(whole: Geometry) -> Geometry:
    """Return the same geometry with more pixels, so that random crops are not upscaled."""
    side = round(whole.crop_to * ENLARGEMENT)
    return replace(whole, resize_to=side, crop_to=side)


def write_whole_images(base: Path, folder: Path) -> None:
    """Write the base's preprocessing for whole images into a checkpoint, in the file that AutoImageProcessor reads."""
    own = Preprocessing.from_checkpoint(base)
    config_file = folder / CONFIG_FILE
    config = json.loads(config_file.read_text(encoding="utf-8"))
    if "pretrained_cfg" in config:
        config["pretrained_cfg"] = _describe_for_timm(config["pretrained_cfg"], own)
        config_file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    else:
        _make_processor(own).save_pretrained(folder)


def _describe_for_timm(config: Mapping[str, Any], own: Preprocessing) -> dict[str, Any]:
    """Use the keys of timm, see https://github.com/huggingface/pytorch-image-models/blob/main/timm/data/config.py."""
    side = own.geometry.crop_to
    # Drop the separate settings for test images.
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
