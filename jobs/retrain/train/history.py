"""How a training went, epoch by epoch: kept in its checkpoint as numbers and as a picture."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

HISTORY_FILE = "training/history.json"
PICTURE_FILE = "training/history.png"


@dataclass(frozen=True)
class EpochRecord:
    """One pass over the photos, counted from 1; the learning rate is that of its last step.

    ``validation_accuracy`` is the share of photos that a classifier, or an encoder among a batch of texts, got right.
    """

    epoch: int
    learning_rate: float
    train_loss: float
    validation_loss: float
    validation_accuracy: float


def write_history(folder: Path, history: Sequence[EpochRecord]) -> None:
    """Write both files into a checkpoint; without times, so that the same training leaves the same files."""
    (folder / "training").mkdir(exist_ok=True)
    (folder / HISTORY_FILE).write_text(json.dumps([asdict(record) for record in history], indent=1), encoding="utf-8")
    if history:
        _draw_history(folder / PICTURE_FILE, history)


def _draw_history(path: Path, history: Sequence[EpochRecord]) -> None:
    # Not pyplot, which keeps figures and asks for a display.
    from matplotlib.figure import Figure

    epochs = [record.epoch for record in history]
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    losses, accuracy, rate = figure.subplots(1, 3)
    losses.plot(epochs, [record.train_loss for record in history], "o-", label="train")
    losses.plot(epochs, [record.validation_loss for record in history], "o-", label="validation")
    losses.legend()
    accuracy.plot(epochs, [record.validation_accuracy for record in history], "o-", color="tab:orange")
    accuracy.set_ylim(0, 1)
    rate.plot(epochs, [record.learning_rate for record in history], "o-", color="tab:gray")
    for axes, title in ((losses, "loss"), (accuracy, "right on validation photos"), (rate, "learning rate at the end")):
        axes.set_title(title)
        axes.set_xlabel("epoch")
        axes.set_xticks(epochs)
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)
