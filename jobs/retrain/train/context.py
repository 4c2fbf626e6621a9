"""Share code between both kinds of training: data and device, the trained model, and writing checkpoints."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from jobs.database.model_versions import ModelKind
from jobs.errors import RefusedError
from jobs.images.geometry import Geometry
from jobs.models.device import Device
from jobs.models.encoder import load_tokenizer
from jobs.progress import SILENT, Progress
from jobs.retrain.evaluate.served_model import load_trained_model
from jobs.retrain.snapshot.image_shards import ImageShards
from jobs.retrain.snapshot.snapshot_file import Snapshot, SnapshotRow, Split
from jobs.retrain.snapshot.snapshot_images import SnapshotImages
from jobs.retrain.train.history import EpochRecord

_Output = TypeVar("_Output")


@contextmanager
def keep_threads() -> Iterator[None]:
    """Restore torch's thread count afterwards. It affects the order of sums, and thereby the trained weights."""
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@dataclass(frozen=True)
class TrainingContext:
    """The data and the device of one training. ``folder`` holds the checkpoints of its epochs.

    The shards of its images are next to ``folder``, so they are deleted with it.
    """

    snapshot: Snapshot
    images: SnapshotImages
    device: Device
    folder: Path
    progress: Progress = SILENT

    def require_rows(self, split: Split, with_text: bool = False) -> tuple[SnapshotRow, ...]:
        """Return the rows of a split, optionally only those that have a text.

        Raises:
            RefusedError: there are none.
        """
        rows = tuple(row for row in self.snapshot.part(split) if row.full_text or not with_text)
        if not rows:
            wanted = f"{split} images with a text" if with_text else f"{split} images"
            raise RefusedError(
                f"snapshot {self.snapshot.snapshot_id[:12]} has no {wanted}: label more products and take a new "
                "snapshot"
            )
        return rows

    def load_shards(self, rows: Sequence[SnapshotRow], geometry: Geometry) -> ImageShards:
        """Decode, resize and store images once. The processes of a training and a later attempt share them."""
        folder = self.locate_shards(rows, geometry)
        self.images.store_shards(rows, geometry, folder)
        return ImageShards(folder, geometry.crop_to)

    def locate_shards(self, rows: Sequence[SnapshotRow], geometry: Geometry) -> Path:
        """Return the folder of these shards. It may not exist."""
        digest = hashlib.sha256(repr(sorted(asdict(geometry).items())).encode())
        for row in rows:
            digest.update(bytes.fromhex(row.content_hash))
        return self.folder.parent / "shards" / digest.hexdigest()[:32]

    def predict(self, checkpoint: Path, kind: ModelKind, images: ImageShards) -> np.ndarray:
        """Return the float32 probabilities or unit vectors [n, outputs] of a checkpoint."""
        with keep_threads():
            served = load_trained_model(checkpoint, kind, self.device)
            return served.predict_in_batches(range(len(images)), images.decode, self.progress)

    def map_batches(
        self, stage: str, work: Callable[[torch.Tensor], _Output], images: ImageShards, size: int, threads: int
    ) -> list[_Output]:
        """Decode images in batches of ``size``, and apply ``work`` to each batch in threads that also decode."""
        starts = range(0, len(images), size)
        with ThreadPoolExecutor(threads) as pool:
            outputs = pool.map(lambda start: work(images.decode(range(start, min(start + size, len(images))))), starts)
            return list(self.progress.track(stage, outputs, len(images), size=size))


@dataclass(frozen=True)
class TrainedModel:
    """A trained model in memory. ``images_per_second`` is None if no epochs were trained in this process."""

    model: Any
    history: tuple[EpochRecord, ...] = ()
    images_per_second: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)


def write_weights(model: Any, folder: Path) -> None:
    """Move the model to the CPU in float32, and write its weights and configuration."""
    model.eval().float().cpu().save_pretrained(folder)


def copy_preprocessing(base: Path, folder: Path) -> None:
    """Copy the preprocessing of the base into a checkpoint."""
    from transformers import AutoImageProcessor

    AutoImageProcessor.from_pretrained(base, local_files_only=True, trust_remote_code=False).save_pretrained(folder)


def write_encoder(model: Any, base: Path, folder: Path) -> None:
    """Write both towers, with the preprocessing and tokenizer of the base."""
    write_weights(model, folder)
    copy_preprocessing(base, folder)
    load_tokenizer(base).save_pretrained(folder)
