"""A model that has learned, before it is stored."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobs.training.history import EpochRecord


@dataclass(frozen=True)
class Learned:
    """The trained model in memory, how it went, and what was measured; no speed where there was no loop."""

    model: Any
    history: tuple[EpochRecord, ...] = ()
    images_per_second: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)


def save_model(model: Any, base: Path, folder: Path) -> None:
    """Write a checkpoint with the base's own preprocessing beside it; the model is then on the CPU and in float32."""
    from transformers import AutoImageProcessor

    model.eval().float().cpu().save_pretrained(folder)
    AutoImageProcessor.from_pretrained(base, local_files_only=True).save_pretrained(folder)
