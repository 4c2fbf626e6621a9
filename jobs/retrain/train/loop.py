"""The training loop: Hugging Face's Trainer with a loss of ours, checkpoints of every epoch, and the best one kept."""

import json
import logging
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import TrainerState

from jobs.errors import RefusedError
from jobs.models.device import Device
from jobs.progress import SILENT, Progress
from jobs.retrain.train.augmentation import AugmentedPhotos, Photos
from jobs.retrain.train.history import EpochRecord
from jobs.retrain.train.requests import TrainingSettings

log = logging.getLogger(__name__)

STATE_FILE = "trainer_state.json"
"""The last file that the Trainer writes of a checkpoint."""
MOST_WORKERS = 8


@dataclass(frozen=True)
class BatchResult:
    """The loss of a batch, and for each of its photos whether the model was right."""

    loss: torch.Tensor
    hits: torch.Tensor


Objective = Callable[[Any, dict[str, torch.Tensor]], BatchResult]
"""Asks a model about a batch; ``model.training`` tells whether to learn or to measure."""


@dataclass(frozen=True)
class TrainingTask:
    """What a model is taught: photos with a field ``labels``, the objective, and the order if it is not random."""

    name: str
    train: AugmentedPhotos
    validation: Photos
    objective: Objective
    order: "torch.utils.data.Sampler[int] | None" = None
    frozen: Sequence[nn.Module] = ()


@dataclass(frozen=True)
class Trained:
    """What the loop did; the speed is that of the epochs of this process, or None where a resume had none to do."""

    history: tuple[EpochRecord, ...]
    images_per_second: float | None


class _Student(nn.Module):
    """What the Trainer sees: a model that gives its own loss.

    As a plain module it is saved under the names that its weights have in memory. The Trainer saves models of
    Transformers under the names of their first release, finds no weight by its name when it loads them, and goes on
    without.
    """

    def __init__(self, model: nn.Module, task: TrainingTask) -> None:
        super().__init__()
        self.model = model
        self.latest_loss: torch.Tensor | None = None
        self._objective = task.objective
        self._frozen = tuple(task.frozen)
        self.register_state_dict_post_hook(_make_contiguous)  # type: ignore[no-untyped-call]

    def forward(self, **batch: torch.Tensor) -> dict[str, torch.Tensor]:
        outcome = self._objective(self.model, batch)
        if self.training:
            self.latest_loss = outcome.loss.detach()
        return {"loss": outcome.loss, "hits": outcome.hits}

    def train(self, mode: bool = True) -> "_Student":
        super().train(mode)
        for layer in self._frozen:
            layer.training = False
        return self


def _make_contiguous(_: nn.Module, state: dict[str, torch.Tensor], *__: object) -> None:
    # Safetensors writes no tensors whose channels lie last.
    for name, values in state.items():
        state[name] = values.contiguous()


class _OrderedTrainer(Trainer):  # type: ignore[misc]
    """A Trainer whose order of photos may be given."""

    def __init__(self, order: "torch.utils.data.Sampler[int] | None", **arguments: Any) -> None:
        super().__init__(**arguments)
        self._order = order

    def _get_train_sampler(self, *arguments: Any) -> Any:
        return self._order if self._order is not None else super()._get_train_sampler(*arguments)


class _EpochWatch(TrainerCallback):  # type: ignore[misc]
    """Tells the photos which epoch it is, reports how far the training is, and measures its speed."""

    def __init__(self, task: TrainingTask, student: _Student, photos_per_step: int, progress: Progress) -> None:
        self._lesson = task
        self._student = student
        self._photos_per_step = photos_per_step
        self._progress = progress
        self._first_step = 0
        self._epoch_started = 0.0
        self._seconds_in_epochs = 0.0
        self._steps_in_epochs = 0

    @property
    def images_per_second(self) -> float | None:
        """Photos learned from, without the time for validation and checkpoints."""
        if not self._steps_in_epochs:
            return None
        return round(self._steps_in_epochs * self._photos_per_step / self._seconds_in_epochs, 1)

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._first_step = state.global_step

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._lesson.train.set_epoch(round(state.epoch))
        self._epoch_started = time.perf_counter()

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._seconds_in_epochs += time.perf_counter() - self._epoch_started
        self._steps_in_epochs = state.global_step - self._first_step

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._report(args, state)

    def on_prediction_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        # Validation is a part of the training, whose speed and end would jump if it were a stage of its own.
        self._report(args, state)

    def _report(self, args: Any, state: Any) -> None:
        photos, epochs = len(self._lesson.train), round(args.num_train_epochs)
        self._progress.report(
            "training",
            round(state.epoch * photos),
            epochs * photos,
            epoch=max(1, math.ceil(state.epoch)),
            epochs=epochs,
            loss=self._student.latest_loss,
        )

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        record = read_epochs(state.log_history)[-1]
        if state.is_world_process_zero:
            log.info(
                "%s: epoch %d, loss %.3f, on validation photos %.3f, right %.1f %%",
                self._lesson.name,
                record.epoch,
                record.train_loss,
                record.validation_loss,
                100 * record.validation_accuracy,
            )


class _EarlyStop(TrainerCallback):  # type: ignore[misc]
    """Ends the training when patience is spent, which the history alone tells, also after a resume."""

    def __init__(self, patience: int) -> None:
        self._patience = patience

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if is_patience_spent(read_epochs(state.log_history), self._patience):
            control.should_training_stop = True


def train(
    model: nn.Module,
    task: TrainingTask,
    settings: TrainingSettings,
    device: Device,
    folder: Path,
    progress: Progress = SILENT,
) -> Trained:
    """Train a model in place and leave it with the weights of its best epoch.

    ``folder`` keeps a checkpoint of each epoch; called again after a kill, the training goes on from the latest.
    Under torchrun every process calls this, and all end with the same weights.

    Raises:
        RefusedError: a loss is not a number.
    """
    checkpoint = _find_checkpoint(folder)
    epochs = settings.epochs
    if checkpoint:
        done = _read_state(checkpoint)
        log.info("%s: going on after epoch %d", task.name, round(done.epoch or 0))
        if is_patience_spent(read_epochs(done.log_history), settings.patience):
            epochs = round(done.epoch or 0)
    arguments = _make_arguments(settings, epochs, len(task.train), device, folder)
    student = _Student(model, task)
    watch = _EpochWatch(task, student, settings.batch_size * arguments.world_size, progress)
    trainer = _OrderedTrainer(
        task.order,
        model=student,
        args=arguments,
        train_dataset=task.train,
        eval_dataset=task.validation,
        data_collator=torch.utils.data.default_collate,
        compute_metrics=_count_hits,
        callbacks=[watch, _EarlyStop(settings.patience)],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    history = read_epochs(trainer.state.log_history)
    if not all(math.isfinite(loss) for record in history for loss in (record.train_loss, record.validation_loss)):
        raise RefusedError(f"{task.name}: the loss is not a number; lower the learning rate")
    return Trained(history, watch.images_per_second)


def _make_arguments(
    settings: TrainingSettings, epochs: int, photos: int, device: Device, folder: Path
) -> TrainingArguments:
    steps = settings.epochs * math.ceil(photos / (settings.batch_size * _count_processes()))
    return TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=epochs,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        warmup_steps=round(settings.warmup_share * steps),
        lr_scheduler_type="cosine",
        bf16=device.dtype is torch.bfloat16,
        fp16=device.is_cuda and device.dtype is torch.float16,
        use_cpu=not device.is_cuda,
        seed=settings.seed,
        data_seed=settings.seed,
        logging_strategy="epoch",
        logging_nan_inf_filter=False,
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        greater_is_better=False,
        label_names=["labels"],
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_num_workers=_count_workers(device),
        dataloader_pin_memory=device.is_cuda,
    )


def _count_processes() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def _count_workers(device: Device) -> int:
    """On a CPU the forward pass wants every core, and photos cost little beside it."""
    if not device.is_cuda:
        return 0
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return min(MOST_WORKERS, max(1, len(os.sched_getaffinity(0)) // processes - 1))


def _count_hits(prediction: Any) -> dict[str, float]:
    return {"accuracy": float(prediction.predictions.mean())}


def _find_checkpoint(folder: Path) -> Path | None:
    """The latest checkpoint that is whole: one that a kill cut short lacks its last file, or has half of it."""
    checkpoints = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rsplit("-", 1)[1]), reverse=True)
    return next((path for path in checkpoints if _is_whole(path)), None)


def _is_whole(checkpoint: Path) -> bool:
    try:
        json.loads((checkpoint / STATE_FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return False
    return True


def _read_state(checkpoint: Path) -> TrainerState:
    return TrainerState.load_from_json(str(checkpoint / STATE_FILE))


def read_epochs(log_history: Sequence[dict[str, float]]) -> tuple[EpochRecord, ...]:
    """The epochs in the Trainer's own log, which has a line for the training and one for the validation of each."""
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


def is_patience_spent(history: Sequence[EpochRecord], patience: int) -> bool:
    """Whether the last ``patience`` epochs brought no lower loss on the validation photos than one before them."""
    losses = [record.validation_loss for record in history]
    return len(losses) > patience and min(losses[-patience:]) >= min(losses[:-patience])
