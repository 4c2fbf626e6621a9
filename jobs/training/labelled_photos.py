"""Labelled photos on disk: what there is to learn from, and the part held back to measure on."""

import csv
import hashlib
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from jobs.errors import PermanentError
from jobs.models.preprocessing import Geometry
from jobs.tagging.decode import DecodedImage, DecodeLimits, decode_image

LABELS_FILE = "labels.csv"
PHOTO_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}


@dataclass(frozen=True)
class LabelledPhoto:
    """A photo with its category, a text that describes it, and the group that must not be split."""

    path: Path
    category: str
    text: str
    group: str


@dataclass(frozen=True)
class Split:
    """Photos to train on, and photos of other groups to measure on."""

    train: tuple[LabelledPhoto, ...]
    test: tuple[LabelledPhoto, ...]


def read_labelled_photos(folder: Path) -> list[LabelledPhoto]:
    """Read ``labels.csv`` (image, label, and if there are any text and group), else one subfolder a category.

    Raises:
        PermanentError: the folder holds neither, or a table that cannot be read.
    """
    labels = folder / LABELS_FILE
    photos = _read_csv(labels) if labels.is_file() else _read_subfolders(folder)
    if not photos:
        raise PermanentError(f"{folder} holds no labelled photos: neither {LABELS_FILE} nor subfolders of photos")
    return photos


def _read_csv(labels: Path) -> list[LabelledPhoto]:
    try:
        # Spreadsheets put a byte order mark in front.
        rows = csv.DictReader(io.StringIO(labels.read_text(encoding="utf-8-sig"), newline=""))
    except UnicodeDecodeError as error:
        raise PermanentError(f"{labels} is not UTF-8: {error}") from None
    if not {"image", "label"} <= set(rows.fieldnames or ()):
        raise PermanentError(f"{labels} lacks the columns image and label")
    return [_read_row(labels, row) for row in rows]


def _read_row(labels: Path, row: dict[str, str | None]) -> LabelledPhoto:
    image, label = row["image"], row["label"]
    if not image or not label:
        raise PermanentError(f"{labels} has a row without an image or a label: {row}")
    return LabelledPhoto(labels.parent / image, label, row.get("text") or label, row.get("group") or image)


def _read_subfolders(folder: Path) -> list[LabelledPhoto]:
    return [
        LabelledPhoto(path, path.parent.name, path.parent.name, path.name)
        for path in sorted(folder.glob("*/*"))
        if path.suffix.lower() in PHOTO_SUFFIXES
    ]


def split_photos(photos: Sequence[LabelledPhoto], test_share: float) -> Split:
    """Hold a share of the groups back, chosen by a stable hash of the group's name.

    Raises:
        PermanentError: so few groups that one of the parts is empty.
    """
    threshold = int(test_share * 2**32)

    def is_test(photo: LabelledPhoto) -> bool:
        return int.from_bytes(hashlib.sha256(photo.group.encode()).digest()[:4], "big") < threshold

    split = Split(
        tuple(photo for photo in photos if not is_test(photo)), tuple(photo for photo in photos if is_test(photo))
    )
    if not split.train or not split.test:
        raise PermanentError(
            f"{len(photos)} labelled photos are too few to train on some and to measure on others: label more"
        )
    return split


def load_pixels(photos: Sequence[LabelledPhoto], geometry: Geometry, threads: int) -> torch.Tensor:
    """Decode and resize as the tagger does: uint8 [n, 3, crop_to, crop_to].

    Raises:
        PermanentError: a photo that cannot be read or decoded; its path and the reason are named.
    """
    limits = DecodeLimits(max_pixels=100_000_000, min_side_pixels=1, target_side=2 * geometry.resize_to)

    def load(photo: LabelledPhoto) -> torch.Tensor:
        try:
            decoded = decode_image(photo.path.read_bytes(), limits)
        except OSError as error:
            raise PermanentError(f"{photo.path}: {error.strerror}; remove its label") from None
        if not isinstance(decoded, DecodedImage):
            raise PermanentError(f"{photo.path}: {decoded.reason} ({decoded.detail}); remove it or its label")
        return geometry.apply(np.ascontiguousarray(decoded.pixels))

    with ThreadPoolExecutor(threads) as pool:
        return torch.stack(list(pool.map(load, photos)))
