"""Convert a torch checkpoint to an OpenVINO graph: uint8 pixels in, logits or unit vectors out."""

import logging
from pathlib import Path

import openvino as ov
import torch

from jobs.database.model_versions import ModelKind
from jobs.errors import first_line
from jobs.models.device import Device, choose_device
from jobs.models.image_model import GRAPH_FILE
from jobs.models.preprocessing import Preprocessing
from jobs.retrain.optimize.export import EXAMPLE_BATCH, load_image_side, trace

log = logging.getLogger(__name__)


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
    model, preprocessing = load_image_side(folder, kind, choose_device("cpu", "fp32"))
    side = preprocessing.geometry.crop_to
    example = torch.zeros(EXAMPLE_BATCH, 3, side, side).contiguous(memory_format=torch.channels_last)
    program = trace(model, example)
    graph = _accept_bytes(ov.convert_model(program), preprocessing, side)
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
