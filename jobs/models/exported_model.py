"""Run programs that torch.export has written. They need torch, but neither Transformers nor the checkpoint."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.export.passes import move_to_device_pass

from jobs.database.model_builds import DeviceClass, EngineName
from jobs.errors import first_line
from jobs.images.geometry import Geometry
from jobs.models.checkpoint import explain_damage
from jobs.models.device import Device, prepare_passes, use_own_stream
from jobs.models.image_model import PACKAGE_FILE, PROGRAM_FILE, ModelBuild, finish
from jobs.models.torch_model import Forward, forward_halving

log = logging.getLogger(__name__)

BATCH_SIZES = (32, 64, 128, 256)
"""Sizes to try on a GPU. A chunk of a run has at most 256 images."""
NEARLY = 0.95
PROBED_PASSES = 3


@dataclass(frozen=True)
class ExportedModel:
    """A program on a device. ``forward`` takes uint8 pixels [n, side, side, 3] on that device."""

    build: ModelBuild
    forward: Forward
    device: Device
    passes: int
    batch_size: int
    engine: EngineName = "torch"

    @property
    def description(self) -> str:
        """Engine and precision as text."""
        return f"{self.build.describe()} on {self.device.torch_device}"

    @property
    def device_class(self) -> DeviceClass:
        """The class of the device that runs the model."""
        return "cuda" if self.device.is_cuda else "cpu"

    @property
    def geometry(self) -> Geometry:
        """How images are resized for this model."""
        return self.build.geometry

    @property
    def categories(self) -> tuple[str, ...]:
        """The categories in the order of a classifier's outputs."""
        return self.build.categories

    def predict(self, pixels: np.ndarray) -> np.ndarray:
        """Turn uint8 pixels [n, side, side, 3] into float32 [n, outputs]: calibrated probabilities or unit vectors."""
        batch = torch.from_numpy(pixels)
        if self.device.is_cuda:
            batch = batch.pin_memory()
        with use_own_stream(self.device), torch.inference_mode():
            outputs = forward_halving(lambda part: self.forward(self._to_device(part)).cpu(), batch)
        return finish(self.build, outputs.numpy())

    def _to_device(self, batch: torch.Tensor) -> torch.Tensor:
        return batch.to(self.device.torch_device, non_blocking=True)


def load_exported_model(folder: Path, build: ModelBuild, device: Device, batch_size: int | None) -> ExportedModel:
    """Load the program of a build. On a CPU, this limits torch to one thread per pass.

    Without ``batch_size``, a short probe chooses it on a GPU.

    Raises:
        ConfigurationError: torch cannot load the program.
    """
    passes = prepare_passes(device)
    side = build.geometry.crop_to
    forward: Forward = load_program(folder / PROGRAM_FILE, device)
    if (folder / PACKAGE_FILE).is_file():
        forward = load_compiled(folder / PACKAGE_FILE, forward, side, device, passes)
    if batch_size is None:
        probe = partial(_measure_speed, forward, side, device)
        batch_size = choose_batch_size(probe) if device.is_cuda else device.batch_size
    return ExportedModel(build, forward, device, passes, batch_size)


def choose_batch_size(measure: Callable[[int], float]) -> int:
    """Return the smallest batch size that is nearly as fast as the fastest, according to a short probe.

    ``measure`` returns the images per second in batches of a size, or raises `torch.OutOfMemoryError`.
    """
    speeds: dict[int, float] = {}
    for size in BATCH_SIZES:
        try:
            speeds[size] = measure(size)
        except torch.OutOfMemoryError:
            break
    enough = NEARLY * max(speeds.values(), default=0.0)
    return next((size for size, speed in speeds.items() if speed >= enough), BATCH_SIZES[0])


def _measure_speed(forward: Forward, side: int, device: Device, batch_size: int) -> float:
    pixels = torch.zeros(batch_size, side, side, 3, dtype=torch.uint8, device=device.torch_device)
    with torch.inference_mode():
        forward(pixels)
        torch.cuda.synchronize(device.torch_device)
        started = time.perf_counter()
        for _ in range(PROBED_PASSES):
            forward(pixels)
        torch.cuda.synchronize(device.torch_device)
    return PROBED_PASSES * batch_size / (time.perf_counter() - started)


def load_compiled(file: Path, program: Forward, side: int, device: Device, passes: int) -> Forward:
    """Load a compiled program and run it once. If it was compiled for another type of GPU, return ``program``."""
    from torch._inductor.package.package import load_package

    place = device.torch_device
    try:
        compiled = load_package(str(file), num_runners=passes, device_index=-1 if place.index is None else place.index)
        # Copying the outputs waits for the device, so an error of its kernels is raised here.
        compiled(torch.zeros(2, side, side, 3, dtype=torch.uint8, device=place)).cpu()
    except RuntimeError as error:
        log.warning("%s does not run here, using the program without compilation: %s", file, first_line(error))
        return program
    return fall_back(compiled, program)


def fall_back(compiled: Forward, program: Forward) -> Forward:
    """Return a function that runs ``compiled``, and ``program`` for a batch on which that fails.

    A compiled program raises only RuntimeError. The other one then raises `torch.OutOfMemoryError`, if that is the
    cause, and the batch is halved.
    """

    def forward(pixels: torch.Tensor) -> torch.Tensor:
        try:
            return compiled(pixels)
        except RuntimeError:
            return program(pixels)

    return forward


def load_program(file: Path, device: Device) -> Callable[..., torch.Tensor]:
    """Load a program onto a device.

    Raises:
        ConfigurationError: the file is not an exported program.
    """
    with explain_damage(f"{file} is not an exported program"):
        program = torch.export.load(file)
    if device.is_cuda:
        program = move_to_device_pass(program, str(device.torch_device))
    # Convolutions are faster with channels last, for weights as for pixels.
    return program.module().to(memory_format=torch.channels_last)
