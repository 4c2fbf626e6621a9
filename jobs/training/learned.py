"""A model that has learned, before it is stored."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobs.models.encoder import load_tokenizer
from jobs.training.history import EpochRecord


@dataclass(frozen=True)
class Learned:
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
