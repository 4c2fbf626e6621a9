"""Read and write the history of a training by epoch. A checkpoint stores it as numbers and as a chart."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

HISTORY_FILE = "training/history.json"
PICTURE_FILE = "training/history.png"


@dataclass(frozen=True)
class EpochRecord:
    """One pass over the train images, counted from 1. The learning rate is from its last step.

    ``validation_accuracy`` is the share of images whose category (or for an encoder, whose text within the batch) the
    model predicts correctly.
    """

    epoch: int
    learning_rate: float
    train_loss: float
    validation_loss: float
    validation_accuracy: float


def read_epochs(log_history: Sequence[dict[str, float]]) -> tuple[EpochRecord, ...]:
    """Read the epochs from a Trainer's log, which has one training and one validation entry per epoch."""
    trained = {entry["step"]: entry for entry in log_history if "loss" in entry}
    return tuple(
        EpochRecord(
            epoch=round(entry["epoch"]),
            learning_rate=trained[entry["step"]]["learning_rate"],
            train_loss=trained[entry["step"]]["loss"],
            validation_loss=entry["eval_loss"],
            validation_accuracy=entry["eval_accuracy"],
        )
        for entry in log_history
        if "eval_loss" in entry
    )


def is_patience_exhausted(history: Sequence[EpochRecord], patience: int) -> bool:
    """Return whether the validation loss did not improve in the last ``patience`` epochs."""
    losses = [record.validation_loss for record in history]
    return len(losses) > patience and min(losses[-patience:]) >= min(losses[:-patience])


def write_history(folder: Path, history: Sequence[EpochRecord]) -> None:
    """Write both files into a checkpoint. They contain no times, so the same training gives the same files."""
    (folder / "training").mkdir(exist_ok=True)
    (folder / HISTORY_FILE).write_text(json.dumps([asdict(record) for record in history], indent=1), encoding="utf-8")
    if history:
        _draw_history(folder / PICTURE_FILE, history)


def _draw_history(path: Path, history: Sequence[EpochRecord]) -> None:
    # Do not use pyplot, which keeps figures open and looks for a display.
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
    for axes, title in ((losses, "loss"), (accuracy, "validation accuracy"), (rate, "final learning rate")):
        axes.set_title(title)
        axes.set_xlabel("epoch")
        axes.set_xticks(epochs)
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)
