"""Convert a torch checkpoint to an OpenVINO graph: uint8 pixels in, logits or unit vectors out."""

import logging
from pathlib import Path
from typing import Any

import openvino as ov
import torch
from torch import nn
from torch.nn import functional

from jobs.database.model_versions import ModelKind
from jobs.errors import first_line
from jobs.models.classifier import load_classifier
from jobs.models.device import Device, choose_device
from jobs.models.encoder import load_image_encoder
from jobs.models.image_model import GRAPH_FILE
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


def convert_unless_torch(checkpoint: Path, kind: ModelKind, device: Device, engine: str) -> ov.Model | None:
    """Convert a checkpoint, or return None if torch serves it.

    Torch serves it if ``engine`` is "torch", if it is "auto" and the device is a GPU, or if torch.export or OpenVINO
    does not support the model.
    """
    if engine == "torch" or (engine == "auto" and device.is_cuda):
        return None
    try:
        return convert_checkpoint(checkpoint, kind)
    except RuntimeError as error:
        log.warning("the %s cannot be converted to an OpenVINO graph and stays in torch: %s", kind, first_line(error))
        return None


def convert_checkpoint(folder: Path, kind: ModelKind) -> ov.Model:
    """Trace the image side of a checkpoint in float32, including the normalization of pixels.

    Operation names depend only on the checkpoint.

    Raises:
        PermanentError: the folder contains no model of this kind.
        Errors of torch.export and OpenVINO: an operation of the model is not supported.
    """
    device = choose_device("cpu", "fp32")
    loaded = load_classifier(folder, device) if kind == "classifier" else load_image_encoder(folder, device)
    module = (_Logits if kind == "classifier" else _UnitVectors)(loaded.model).eval()
    side = loaded.preprocessing.geometry.crop_to
    example = torch.zeros(EXAMPLE_BATCH, 3, side, side).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        program = torch.export.export(module, (example,), dynamic_shapes=({0: torch.export.Dim("images", min=1)},))
    graph = _accept_bytes(ov.convert_model(program), loaded.preprocessing, side)
    _name_operations(graph)
    return graph


def save_graph(graph: ov.Model, folder: Path) -> None:
    """Write a graph into a folder, which is created if missing. The same graph always produces the same bytes."""
    folder.mkdir(exist_ok=True)
    _name_operations(graph)
    # Stored in float32, like the checkpoint. The graph is converted to bf16 when it is compiled.
    ov.save_model(graph, folder / GRAPH_FILE, compress_to_fp16=False)


def _name_operations(graph: ov.Model) -> None:
    """Replace OpenVINO's names. They contain process-wide counters, which would change the hash of the artifact."""
    graph.set_friendly_name(GRAPH_FILE)
    for number, operation in enumerate(graph.get_ordered_ops()):
        operation.set_friendly_name(f"{operation.get_type_name()}_{number}")


def _accept_bytes(graph: ov.Model, preprocessing: Preprocessing, side: int) -> ov.Model:
    graph.reshape([-1, 3, side, side])
    steps = ov.preprocess.PrePostProcessor(graph)
    pixels = steps.input(0)
    pixels.tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC"))
    pixels.model().set_layout(ov.Layout("NCHW"))
    pixels.preprocess().convert_element_type(ov.Type.f32).mean([255 * value for value in preprocessing.mean]).scale(
        [255 * value for value in preprocessing.std]
    )
    return steps.build()
