"""What a training works with, and what it returns."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobs.errors import RefusedError
from jobs.models.device import Device
from jobs.models.encoder import load_tokenizer
from jobs.progress import SILENT, Progress
from jobs.retrain.snapshot.snapshot_file import Snapshot, SnapshotRow, Split
from jobs.retrain.snapshot.snapshot_photos import SnapshotPhotos
from jobs.retrain.train.history import EpochRecord


@dataclass(frozen=True)
class TrainedModel:
    """The trained model in memory, how it went, and what was measured; no speed where there was no loop."""

    model: Any
    history: tuple[EpochRecord, ...] = ()
    images_per_second: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)


def write_weights(model: Any, folder: Path) -> None:
    """Write weights and configuration; the model is then on the CPU and in float32."""
    model.eval().float().cpu().save_pretrained(folder)


def copy_preprocessing(base: Path, folder: Path) -> None:
    """Let a checkpoint see photos as its base does."""
    from transformers import AutoImageProcessor

    AutoImageProcessor.from_pretrained(base, local_files_only=True, trust_remote_code=False).save_pretrained(folder)


def write_encoder(model: Any, base: Path, folder: Path) -> None:
    """Write both towers, with the preprocessing and the tokenizer of their base."""
    write_weights(model, folder)
    copy_preprocessing(base, folder)
    load_tokenizer(base).save_pretrained(folder)


@dataclass(frozen=True)
class TrainingContext:
    """Where a model learns; ``folder`` keeps its checkpoints."""

    snapshot: Snapshot
    photos: SnapshotPhotos
    device: Device
    folder: Path
    progress: Progress = SILENT

    def require_rows(self, split: Split, with_text: bool = False) -> tuple[SnapshotRow, ...]:
        """The rows of a part, or those of them that have a text.

        Raises:
            RefusedError: there are none.
        """
        rows = tuple(row for row in self.snapshot.part(split) if row.full_text or not with_text)
        if not rows:
            wanted = f"{split} photos with a text" if with_text else f"{split} photos"
            raise RefusedError(
                f"snapshot {self.snapshot.snapshot_id[:12]} has no {wanted}: label more products and take a new one"
            )
        return rows
