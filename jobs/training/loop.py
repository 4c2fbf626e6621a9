"""The training loop: Hugging Face's Trainer with a loss of ours."""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from jobs.models.device import choose_device
from jobs.training.augmentation import AugmentedPhotos

log = logging.getLogger(__name__)

Loss = Callable[[Any, dict[str, torch.Tensor]], torch.Tensor]


@dataclass(frozen=True)
class TrainingSettings:
    """One pass over the photos is an epoch; the learning rate rises to its peak and falls along a cosine."""

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float = 0.05
    warmup_share: float = 0.1
    seed: int = 7


class _Progress(TrainerCallback):  # type: ignore[misc]
    """Logs how far, how well, how fast, and how long still."""

    def __init__(self, name: str, photos_per_step: int) -> None:
        self._name = name
        self._photos_per_step = photos_per_step
        self._started = time.perf_counter()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        if logs is None or "loss" not in logs:
            return
        seconds = time.perf_counter() - self._started
        log.info(
            "%s: epoch %.1f of %d, loss %.3f, %.0f photos/s, %.0f s left",
            self._name,
            state.epoch,
            args.num_train_epochs,
            float(logs["loss"]),
            state.global_step * self._photos_per_step / seconds,
            seconds * (state.max_steps - state.global_step) / state.global_step,
        )


class _LossTrainer(Trainer):  # type: ignore[misc]
    """A Trainer whose loss is passed in."""

    def __init__(self, loss: Loss, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._loss = loss

    def compute_loss(self, model: Any, inputs: dict[str, torch.Tensor], **_: Any) -> torch.Tensor:
        return self._loss(model, inputs)


def train(
    name: str, model: Any, photos: AugmentedPhotos, loss: Loss, settings: TrainingSettings, scratch: Path
) -> None:
    """Train a model in place; ``name`` stands in the log, ``scratch`` is a folder for what the Trainer writes."""
    device = choose_device("auto", "auto")
    steps = settings.epochs * math.ceil(len(photos) / settings.batch_size)
    arguments = TrainingArguments(
        output_dir=str(scratch),
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        warmup_steps=round(settings.warmup_share * steps),
        lr_scheduler_type="cosine",
        bf16=device.dtype is torch.bfloat16,
        fp16=device.dtype is torch.float16,
        use_cpu=not device.is_cuda,
        seed=settings.seed,
        logging_steps=max(1, steps // 10),
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=device.is_cuda,
    )
    trainer = _LossTrainer(loss, model=model, args=arguments, train_dataset=photos)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(_Progress(name, settings.batch_size))
    trainer.train()
