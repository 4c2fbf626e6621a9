"""Export the image side of a checkpoint as a program: uint8 pixels in, logits or unit vectors out."""

import logging
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import Dim, ExportedProgram
from torch.nn import functional

from jobs.database.model_versions import ModelKind
from jobs.errors import first_line
from jobs.models.classifier import load_classifier
from jobs.models.device import Device
from jobs.models.encoder import load_image_encoder
from jobs.models.image_model import PACKAGE_FILE, PROGRAM_FILE
from jobs.models.preprocessing import Preprocessing

log = logging.getLogger(__name__)

EXAMPLE_BATCH = 2
"""Not 1, because torch.export would treat a batch size of 1 as constant."""


class _Logits(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(pixel_values=pixels).logits
        return logits


class _UnitVectors(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return functional.normalize(self.model.get_image_features(pixel_values=pixels).pooler_output, dim=-1)


class _FromBytes(nn.Module):
    """Normalize uint8 pixels [n, side, side, 3], run a model in its precision, and return float32."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, model: nn.Module, preprocessing: Preprocessing, dtype: torch.dtype) -> None:
        super().__init__()
        self.model = model
        self.dtype = dtype
        self.register_buffer("mean", 255 * torch.tensor(preprocessing.mean))
        self.register_buffer("std", 255 * torch.tensor(preprocessing.std))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        # Only the view changes: channels stay last in memory, which is faster for convolutions.
        inputs = ((pixels.float() - self.mean) / self.std).to(self.dtype).permute(0, 3, 1, 2)
        outputs: torch.Tensor = self.model(inputs).float()
        return outputs


def load_image_side(folder: Path, kind: ModelKind, device: Device) -> tuple[nn.Module, Preprocessing]:
    """Load the part of a checkpoint that takes normalized pixels [n, 3, side, side], in the precision of the device.

    Raises:
        PermanentError: the folder contains no model of this kind.
    """
    loaded = load_classifier(folder, device) if kind == "classifier" else load_image_encoder(folder, device)
    module = (_Logits if kind == "classifier" else _UnitVectors)(loaded.model)
    return module.eval(), loaded.preprocessing


def trace(module: nn.Module, example: torch.Tensor) -> ExportedProgram:
    """Trace a module with one input, for batches of any size."""
    with torch.no_grad():
        return torch.export.export(module, (example,), dynamic_shapes=({0: Dim("images", min=1)},))


def own_weights(module: nn.Module) -> nn.Module:
    """Give each weight its own contiguous block of memory, as torch.export.save requires. Return the module."""
    for weights in chain(module.parameters(), module.buffers()):
        weights.data = weights.data.clone(memory_format=torch.contiguous_format)
    return module


def export_checkpoint(checkpoint: Path, kind: ModelKind, device: Device, folder: Path) -> None:
    """Write the program of a checkpoint in the precision of a device. Compile it, too, if the device is a GPU.

    Raises:
        PermanentError: the checkpoint contains no model of this kind.
        RuntimeError: torch.export does not support the model.
    """
    # Traced on the CPU, so a program runs on any GPU.
    on_cpu = Device(torch.device("cpu"), device.dtype)
    model, preprocessing = load_image_side(checkpoint, kind, on_cpu)
    own_weights(model)
    side = preprocessing.geometry.crop_to
    example = torch.zeros(EXAMPLE_BATCH, side, side, 3, dtype=torch.uint8)
    program = trace(_FromBytes(model, preprocessing, device.dtype).eval(), example)
    folder.mkdir(exist_ok=True)
    torch.export.save(program, folder / PROGRAM_FILE)
    if device.is_cuda:
        compile_program(program, device, folder / PACKAGE_FILE)


def compile_program(program: ExportedProgram, device: Device, file: Path) -> None:
    """Compile a program for the device with AOTInductor. Without a compiler on this machine, write nothing."""
    from torch.export.passes import move_to_device_pass

    try:
        moved = move_to_device_pass(program, str(device.torch_device))
        torch._inductor.aoti_compile_and_package(moved, package_path=str(file))
    except Exception as error:  # noqa: BLE001 - the compilers of torch raise many types, and the program runs anyway
        log.warning("the program is served without compilation: %s", first_line(error))
