"""Run Hugging Face's Trainer with our own losses, save a checkpoint per epoch, and keep the best one."""

import json
import logging
import math
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import TrainerState

from jobs.cores import count_cores
from jobs.errors import RefusedError
from jobs.models.device import Device
from jobs.progress import SILENT, Progress
from jobs.retrain.train.epochs import choose_epochs, count_processes, measure_epoch
from jobs.retrain.train.history import EpochRecord, is_patience_exhausted, read_epochs
from jobs.retrain.train.requests import Hyperparameters
from jobs.retrain.train.training_images import AugmentedImages, Images, take_batch

log = logging.getLogger(__name__)

STATE_FILE = "trainer_state.json"
"""The last file that the Trainer writes into a checkpoint."""
MAX_WORKERS = 16
BATCHES_PER_WORKER = 3
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108


@dataclass(frozen=True)
class BatchResult:
    """The loss of a batch, and for each of its images whether the prediction was correct."""

    loss: torch.Tensor
    hits: torch.Tensor


Objective = Callable[[Any, dict[str, torch.Tensor]], BatchResult]
"""Compute the result of a model on a batch. ``model.training`` is false during validation."""


@dataclass(frozen=True)
class TrainingTask:
    """The images with a field ``labels``, the objective, and the order of the images (random if None).

    ``frozen`` layers stay in evaluation mode.
    """

    name: str
    train: AugmentedImages
    validation: Images
    objective: Objective
    order: "torch.utils.data.Sampler[int] | None" = None
    frozen: Sequence[nn.Module] = ()


@dataclass(frozen=True)
class LoopResult:
    """All epochs, and the speed of those trained in this process: None if a resumed training was already complete."""

    history: tuple[EpochRecord, ...]
    images_per_second: float | None


class _ModelWithLoss(nn.Module):
    """A model that computes its own loss, as the Trainer expects.

    The wrapper is a plain module, so its weights are saved under their names in memory. The Trainer saves models of
    Transformers under the weight names of their first release. When it resumes, it cannot find these names and
    continues without the weights.
    """

    accepts_loss_kwargs = False
    """Our losses are means. Otherwise, the Trainer multiplies the loss by the number of processes."""

    def __init__(self, model: nn.Module, task: TrainingTask) -> None:
        super().__init__()
        self.model = model
        self.latest_loss: torch.Tensor | None = None
        self._objective = task.objective
        self._frozen = tuple(task.frozen)
        self.register_state_dict_post_hook(_make_contiguous)  # type: ignore[no-untyped-call]

    def forward(self, **batch: torch.Tensor) -> dict[str, torch.Tensor]:
        result = self._objective(self.model, batch)
        if self.training:
            self.latest_loss = result.loss.detach()
        return {"loss": result.loss, "hits": result.hits}

    def train(self, mode: bool = True) -> "_ModelWithLoss":
        super().train(mode)
        for layer in self._frozen:
            layer.training = False
        return self


def _make_contiguous(_: nn.Module, state: dict[str, torch.Tensor], *__: object) -> None:
    # Safetensors cannot write channels-last tensors.
    for name, values in state.items():
        state[name] = values.contiguous()


class _TaskTrainer(Trainer):  # type: ignore[misc]
    """A Trainer that visits the images in the order of the task, and augments them on the device."""

    def __init__(self, task: TrainingTask, **arguments: Any) -> None:
        super().__init__(train_dataset=task.train, eval_dataset=task.validation, **arguments)
        self._task = task

    def _get_train_sampler(self, *arguments: Any) -> Any:
        return self._task.order if self._task.order is not None else super()._get_train_sampler(*arguments)

    def _prepare_inputs(self, inputs: Any) -> dict[str, torch.Tensor]:
        return self._task.train.augment(super()._prepare_inputs(inputs))


class _EpochCallback(TrainerCallback):  # type: ignore[misc]
    """Pass the epoch to the images, report progress, measure the speed, and stop when patience is exhausted."""

    def __init__(
        self, task: TrainingTask, model: _ModelWithLoss, images_per_step: int, patience: int, progress: Progress
    ) -> None:
        self._task = task
        self._model = model
        self._images_per_step = images_per_step
        self._patience = patience
        self._progress = progress
        self._first_step = 0
        self._epoch_started = 0.0
        self._seconds_in_epochs = 0.0
        self._steps_in_epochs = 0

    @property
    def images_per_second(self) -> float | None:
        """Return the training speed, excluding validation and checkpoints."""
        if not self._steps_in_epochs:
            return None
        return round(self._steps_in_epochs * self._images_per_step / self._seconds_in_epochs, 1)

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._first_step = state.global_step

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._task.train.set_epoch(round(state.epoch))
        self._epoch_started = time.perf_counter()

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._seconds_in_epochs += time.perf_counter() - self._epoch_started
        self._steps_in_epochs = state.global_step - self._first_step

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._report(args, state)

    def on_prediction_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        # Report the training stage: if validation were its own stage, speed and remaining time would jump.
        self._report(args, state)

    def _report(self, args: Any, state: Any) -> None:
        images, epochs = len(self._task.train), round(args.num_train_epochs)
        self._progress.report(
            "training",
            round(state.epoch * images),
            epochs * images,
            epoch=max(1, math.ceil(state.epoch)),
            epochs=epochs,
            loss=self._model.latest_loss,
        )

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        history = read_epochs(state.log_history)
        latest = history[-1]
        if state.is_world_process_zero:
            log.info(
                "%s: epoch %d, train loss %.3f, validation loss %.3f, validation accuracy %.1f %%",
                self._task.name,
                latest.epoch,
                latest.train_loss,
                latest.validation_loss,
                100 * latest.validation_accuracy,
            )
        # Depends only on the history, so it also works after a resume.
        if is_patience_exhausted(history, self._patience):
            control.should_training_stop = True


def train(
    model: nn.Module,
    task: TrainingTask,
    hyperparameters: Hyperparameters,
    device: Device,
    folder: Path,
    progress: Progress = SILENT,
) -> LoopResult:
    """Train a model in place. Afterwards it has the weights of its best epoch.

    ``folder`` keeps a checkpoint per epoch. After a kill, another call resumes from the latest checkpoint. Under
    torchrun every process calls this function, and all end with the same weights.

    Raises:
        RefusedError: the loss is NaN or infinite.
    """
    checkpoint = _find_checkpoint(folder)
    wrapped = _ModelWithLoss(model, task)
    epochs = choose_epochs(
        folder,
        hyperparameters,
        lambda: measure_epoch(wrapped, task.train, task.validation, hyperparameters, device),
    )
    hyperparameters = replace(hyperparameters, epochs=epochs)
    if checkpoint:
        state = TrainerState.load_from_json(str(checkpoint / STATE_FILE))
        done = round(state.epoch or 0)
        log.info("%s: resuming after epoch %d", task.name, done)
        if is_patience_exhausted(read_epochs(state.log_history), hyperparameters.patience):
            epochs = done
    arguments = _make_arguments(hyperparameters, epochs, len(task.train), device, folder)
    if device.is_cuda:
        arguments.dataloader_num_workers = count_workers(
            hyperparameters.batch_size * task.train.bytes_per_image, shutil.disk_usage(SHARED_MEMORY).free
        )
    images_per_step = hyperparameters.batch_size * arguments.world_size
    callback = _EpochCallback(task, wrapped, images_per_step, hyperparameters.patience, progress)
    trainer = _TaskTrainer(
        task,
        model=wrapped,
        args=arguments,
        data_collator=take_batch,
        compute_metrics=_compute_accuracy,
        callbacks=[callback],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    history = read_epochs(trainer.state.log_history)
    if not all(math.isfinite(loss) for record in history for loss in (record.train_loss, record.validation_loss)):
        raise RefusedError(f"{task.name}: the loss is NaN or infinite: use a lower --learning-rate")
    return LoopResult(history, callback.images_per_second)


def _make_arguments(
    hyperparameters: Hyperparameters, epochs: int, images: int, device: Device, folder: Path
) -> TrainingArguments:
    steps = hyperparameters.epochs * math.ceil(images / (hyperparameters.batch_size * count_processes()))
    arguments = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=epochs,
        per_device_train_batch_size=hyperparameters.batch_size,
        per_device_eval_batch_size=hyperparameters.batch_size,
        learning_rate=hyperparameters.learning_rate,
        weight_decay=hyperparameters.weight_decay,
        warmup_steps=round(hyperparameters.warmup_share * steps),
        lr_scheduler_type="cosine",
        bf16=device.dtype is torch.bfloat16,
        fp16=device.is_cuda and device.dtype is torch.float16,
        use_cpu=not device.is_cuda,
        seed=hyperparameters.seed,
        data_seed=hyperparameters.seed,
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
        # On a CPU, the training process decodes: the forward pass needs every core, and decoding is cheap.
        dataloader_num_workers=0,
        dataloader_pin_memory=device.is_cuda,
        accelerator_config={"non_blocking": device.is_cuda},
    )
    if device.is_cuda:
        # Each process uses one GPU. Otherwise a single process would spread its batches over all GPUs of the machine.
        arguments._n_gpu = 1
    return arguments


def count_workers(batch_bytes: int, shared_bytes: int) -> int:
    """Return the number of processes that decode images for one GPU: one less than its share of the cores.

    Every worker keeps up to three batches in shared memory, whose default size in a container is only 64 MB. Without
    room for a worker, return 0: the training process then decodes.
    """
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    wanted = min(MAX_WORKERS, max(1, count_cores() // processes - 1))
    possible = shared_bytes // (processes * BATCHES_PER_WORKER * batch_bytes)
    if possible < wanted:
        log.warning("%s has room for the batches of %d workers instead of %d", SHARED_MEMORY, possible, wanted)
    return min(wanted, possible)


def _compute_accuracy(prediction: Any) -> dict[str, float]:
    return {"accuracy": float(prediction.predictions.mean())}


def _find_checkpoint(folder: Path) -> Path | None:
    """Return the latest complete checkpoint. An interrupted one lacks its last file or contains only a part of it."""
    checkpoints = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rsplit("-", 1)[1]), reverse=True)
    return next((path for path in checkpoints if _is_complete(path)), None)


def _is_complete(checkpoint: Path) -> bool:
    try:
        json.loads((checkpoint / STATE_FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return False
    return True
