"""Choose the number of epochs that fit into a time budget."""

import copy
import json
import logging
import math
import os
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from jobs.models.device import Device
from jobs.retrain.train.requests import Hyperparameters
from jobs.retrain.train.training_images import AugmentedImages, Batch, Images

log = logging.getLogger(__name__)

EPOCHS_FILE = "epochs.json"
USED_SHARE = 0.9
"""Share of the budget that the estimate may use. The rest is for checkpoints and slower phases."""
PROBED_STEPS = 3
POLL_SECONDS = 0.2


def count_processes() -> int:
    """Return the number of processes that train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first_process() -> bool:
    """Return whether this process stores what all of them share."""
    return os.environ.get("RANK", "0") == "0"


def choose_epochs(folder: Path, hyperparameters: Hyperparameters, measure_epoch: Callable[[], float]) -> int:
    """Return the number of epochs. A resumed training keeps the number that was chosen first.

    ``measure_epoch`` returns seconds. Under torchrun, the first process measures, and the others wait for its choice.
    """
    if hyperparameters.budget_minutes is None:
        return hyperparameters.epochs
    path = folder / EPOCHS_FILE
    if is_first_process() and not path.exists():
        seconds = measure_epoch()
        epochs = count_epochs(seconds, hyperparameters.budget_minutes, hyperparameters.epochs)
        log.info("%d epochs of %.1f minutes fit into %g minutes", epochs, seconds / 60, hyperparameters.budget_minutes)
        folder.mkdir(parents=True, exist_ok=True)
        staged = path.with_suffix(".tmp")
        staged.write_text(json.dumps(epochs), encoding="utf-8")
        staged.replace(path)
    while not path.exists():
        time.sleep(POLL_SECONDS)
    return int(json.loads(path.read_text(encoding="utf-8")))


def count_epochs(seconds_per_epoch: float, budget_minutes: float, max_epochs: int) -> int:
    """Return how many epochs fit into the budget: at least one, and at most ``max_epochs``."""
    fitting = int(USED_SHARE * budget_minutes * 60 / seconds_per_epoch)
    return max(1, min(max_epochs, fitting))


def measure_epoch(
    model: nn.Module, train: AugmentedImages, validation: Images, hyperparameters: Hyperparameters, device: Device
) -> float:
    """Estimate the seconds of an epoch with its validation, from a few steps of a copy of the model.

    ``model`` returns a dictionary with the loss of a batch. Neither its weights nor the random state change.
    """
    size = hyperparameters.batch_size
    probe = copy.deepcopy(model).to(device.torch_device)
    optimizer = torch.optim.AdamW(probe.parameters(), 0.0)

    def step(number: int) -> None:
        batch = train.augment(_read_batch(train, number, size, device))
        _compute_loss(probe, batch, device).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()

    def validate(number: int) -> None:
        with torch.no_grad():
            _compute_loss(probe, _read_batch(validation, number, size, device), device)

    with torch.random.fork_rng():
        probe.train()
        seconds = _time_steps(step, device) * _count_steps(train, size)
        probe.eval()
        return seconds + _time_steps(validate, device) * _count_steps(validation, size)


def _read_batch(images: Images, number: int, size: int, device: Device) -> Batch:
    positions = [position % len(images) for position in range(number * size, (number + 1) * size)]
    return {name: values.to(device.torch_device) for name, values in images.__getitems__(positions).items()}


def _compute_loss(model: nn.Module, batch: Batch, device: Device) -> torch.Tensor:
    with torch.autocast(device.torch_device.type, device.dtype, enabled=device.dtype is not torch.float32):
        loss: torch.Tensor = model(**batch)["loss"]
    return loss


def _count_steps(images: Images, size: int) -> int:
    return math.ceil(len(images) / (size * count_processes()))


def _time_steps(step: Callable[[int], None], device: Device) -> float:
    """Return the mean seconds of a few steps, after a first one that is slower."""
    step(0)
    started = time.perf_counter()
    for number in range(1, 1 + PROBED_STEPS):
        step(number)
    if device.is_cuda:
        torch.cuda.synchronize()
    return (time.perf_counter() - started) / PROBED_STEPS
