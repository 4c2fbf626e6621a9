"""Training contexts for tests: labeled images in a shop's artifacts, and bases that train in seconds."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from demo.blank_checkpoints import write_blank_clip
from fixtures.candidates import LabeledSet, store_labeled_set
from fixtures.shop import IMAGE_SIDE, Shop
from jobs.models.classifier import load_classifier
from jobs.models.device import choose_device
from jobs.retrain.snapshot.image_shards import ImageShards, encode, write_shards
from jobs.retrain.snapshot.snapshot_file import SnapshotRow, Split, make_snapshot
from jobs.retrain.snapshot.snapshot_images import SnapshotImages
from jobs.retrain.train.context import TrainingContext

EXACT = choose_device("cpu", "fp32")


def open_context(shop: Shop, labeled: LabeledSet, folder: Path) -> TrainingContext:
    """Store the images and open a context, as `train_candidate` does."""
    store_labeled_set(shop.connections, labeled)
    images = SnapshotImages(shop.connections.store, shop.connections.artifacts)
    return TrainingContext(labeled.snapshot, images, EXACT, folder / "checkpoints")


def store_images(folder: Path, pixels: torch.Tensor) -> ImageShards:
    """Store uint8 images [n, 3, side, side] as a training does. Their pixels change slightly."""
    write_shards(folder, [[encode(image) for image in pixels.permute(0, 2, 3, 1).numpy()]])
    return ImageShards(folder, pixels.shape[-1])


def change_rows(labeled: LabeledSet, rows: Iterable[SnapshotRow]) -> LabeledSet:
    """Return the same images with other labels."""
    return replace(labeled, snapshot=make_snapshot(list(rows)))


def write_small_clip(folder: Path, texts: Sequence[str]) -> None:
    """Write an encoder with random weights that trains in seconds."""
    write_blank_clip(folder, IMAGE_SIDE, patch_side=16, width=64, dimensions=64, layers=2, texts=texts)


def measure_accuracy(checkpoint: Path, context: TrainingContext, split: Split) -> float:
    """Return the accuracy of a stored classifier on a split."""
    classifier = load_classifier(checkpoint, EXACT)
    rows = context.snapshot.part(split)
    pixels = context.images.load_pixels(rows, classifier.preprocessing.geometry)
    predictions = [classifier.categories[index] for index in classifier.predict(pixels).argmax(1)]
    return float(np.mean([prediction == row.category for prediction, row in zip(predictions, rows, strict=True)]))
