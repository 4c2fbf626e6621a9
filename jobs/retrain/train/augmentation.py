"""Prepare images for training: use the whole image instead of a center crop, and augment it randomly."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torchvision.transforms import v2

from jobs.images.geometry import Geometry
from jobs.models.preprocessing import PILLOW_NAMES, Preprocessing
from jobs.retrain.train.requests import Augmentation
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


def build_augmentation(augmentation: Augmentation, side: int) -> v2.Transform:
    """Return a transform from uint8 images [3, h, w] to augmented random crops [3, side, side]."""
    transforms: list[v2.Transform] = [
        v2.RandomHorizontalFlip(),
        v2.RandomResizedCrop(side, scale=(augmentation.smallest_crop, 1.0), ratio=(0.85, 1.18), antialias=True),
    ]
    if augmentation.rotation_degrees:
        transforms.append(
            v2.RandomRotation(augmentation.rotation_degrees, interpolation=v2.InterpolationMode.BILINEAR, fill=127)
        )
    if augmentation.color_jitter:
        transforms.append(v2.ColorJitter(augmentation.color_jitter, augmentation.color_jitter))
    return v2.Compose(transforms)


class Images(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """Images with their fields, unchanged."""

    def __init__(self, pixels: torch.Tensor, fields: dict[str, torch.Tensor]) -> None:
        self._pixels = pixels
        self._fields = fields

    def __len__(self) -> int:
        return len(self._pixels)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"pixels": self._pixels[index]} | {name: values[index] for name, values in self._fields.items()}


class AugmentedImages(Images):
    """Images with random changes that differ in every epoch.

    The changes depend only on seed, epoch and index. A resumed training sees the same images as one that was never
    interrupted, regardless of the number of workers.
    """

    def __init__(
        self, pixels: torch.Tensor, fields: dict[str, torch.Tensor], transform: v2.Transform, seed: int
    ) -> None:
        super().__init__(pixels, fields)
        self._transform = transform
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, counted from 0."""
        self._epoch = epoch

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        item = super().__getitem__(index)
        # Torchvision's transforms use the global generator, which other code also uses.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(_mix_seed(self._seed, self._epoch, index))
            return item | {"pixels": self._transform(item["pixels"])}


def _mix_seed(*numbers: int) -> int:
    """Combine numbers into one seed with well-mixed bits, which torch's generators need."""
    return int.from_bytes(hashlib.blake2b(repr(numbers).encode(), digest_size=7).digest(), "big")
