"""A place to train in: labelled photos in a shop's artifacts, and bases that are quick."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from demo.blank_checkpoints import write_blank_clip
from fixtures.candidates import LabeledSet, store_labeled_set
from fixtures.shop import IMAGE_SIDE, Shop
from jobs.models.classifier import load_classifier
from jobs.models.device import choose_device
from jobs.retrain.snapshot.snapshot_file import SnapshotRow, Split, make_snapshot
from jobs.retrain.snapshot.snapshot_photos import SnapshotPhotos
from jobs.retrain.train.context import TrainingContext

EXACT = choose_device("cpu", "fp32")


def open_context(shop: Shop, labelled: LabeledSet, folder: Path) -> TrainingContext:
    """Store the photos and stand before them, as `train_candidate` does."""
    store_labeled_set(shop.connections, labelled)
    photos = SnapshotPhotos(shop.connections.store, shop.connections.artifacts, folder / "cache")
    return TrainingContext(labelled.snapshot, photos, EXACT, folder / "checkpoints")


def change_rows(labelled: LabeledSet, rows: Iterable[SnapshotRow]) -> LabeledSet:
    """The same photos under other labels."""
    return replace(labelled, snapshot=make_snapshot(list(rows)))


def write_small_clip(folder: Path, texts: Sequence[str]) -> None:
    """An encoder with random weights that learns in seconds."""
    write_blank_clip(folder, IMAGE_SIDE, patch_side=16, width=64, dimensions=64, layers=2, texts=texts)


def measure_accuracy(checkpoint: Path, context: TrainingContext, split: Split) -> float:
    """The share of a part that a stored classifier gets right."""
    classifier = load_classifier(checkpoint, EXACT)
    rows = context.snapshot.part(split)
    pixels = context.photos.load_pixels(rows, classifier.preprocessing.geometry)
    answers = [classifier.categories[index] for index in classifier.predict(pixels).argmax(1)]
    return float(np.mean([answer == row.category for answer, row in zip(answers, rows, strict=True)]))
