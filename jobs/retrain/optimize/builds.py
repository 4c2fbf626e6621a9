"""The ways in which a checkpoint may be served, other than by itself in float32."""

import logging
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import openvino as ov

from jobs.database.model_versions import ModelKind
from jobs.errors import first_line
from jobs.models.device import Device, choose_device
from jobs.models.image_model import Production
from jobs.models.openvino_model import list_float_precisions
from jobs.retrain.optimize.blocks import Mixture, list_blocks, list_mixtures, rank_blocks
from jobs.retrain.optimize.context import Workshop
from jobs.retrain.optimize.convert import convert_checkpoint, save_graph
from jobs.retrain.optimize.quantize import quantise
from jobs.settings import Settings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Way:
    """What a version would be served as; ``build`` writes what that takes into a folder that does not exist yet."""

    production: Production
    build: Callable[[Path], object]


def convert(checkpoint: Path, kind: ModelKind, device: Device, settings: Settings) -> ov.Model | None:
    """The checkpoint as a graph; None where torch serves, since a GPU is there, a setting asks for it, or torch.export
    or OpenVINO cannot express what the model does.
    """
    engine = settings.engine if settings.engine != "auto" else "torch" if device.is_cuda else "openvino"
    if engine == "torch":
        return None
    try:
        return convert_checkpoint(checkpoint, kind)
    except RuntimeError as error:
        log.warning("the %s cannot become a graph, and stays in torch: %s", kind, first_line(error))
        return None


def list_torch_ways(workshop: Workshop, settings: Settings) -> Iterator[Way]:
    """The precision of the device or of the settings, where that is not float32."""
    native = choose_device(settings.device, settings.precision).precision
    if native != "fp32":
        production = replace(workshop.production, precision=native, rest_precision=native)
        yield Way(production, lambda folder: shutil.copytree(workshop.checkpoint, folder))


def list_float_ways(workshop: Workshop, settings: Settings, graph: ov.Model) -> Iterator[Way]:
    """The graph in the precisions of floats that this processor computes in, the fastest first."""
    for name in ("fp32",) if settings.precision == "fp32" else list_float_precisions():
        production = replace(workshop.production, engine="openvino", precision=name, rest_precision=name)
        yield Way(production, lambda folder: save_graph(graph, folder))


def quantise_whole(workshop: Workshop, graph: ov.Model) -> Way:
    """The graph in int8, and in float32 what NNCF does not quantise."""
    production = replace(workshop.production, engine="openvino", precision="int8", rest_precision="fp32")

    def build(folder: Path) -> None:
        save_graph(quantise(graph, workshop.load_calibration(), progress=workshop.progress), folder)

    return Way(production, build)


def list_mixed_ways(workshop: Workshop, graph: ov.Model) -> tuple[Way, ...]:
    """The graph in int8 but for its most sensitive blocks, ever more of them, which are in the fastest float."""
    rest = list_float_precisions()[0]
    calibration = workshop.load_calibration()
    blocks = list_blocks(graph)
    served = replace(workshop.production, engine="openvino", precision="int8", rest_precision=rest)

    def make_way(mixture: Mixture) -> Way:
        production = replace(served, int8_share=mixture.int8_share, float_blocks=mixture.float_blocks)

        def build(folder: Path) -> None:
            save_graph(quantise(graph, calibration, mixture.operations, progress=workshop.progress), folder)

        return Way(production, build)

    ranked = rank_blocks(graph, blocks, calibration, rest, workshop.progress)
    return tuple(make_way(mixture) for mixture in list_mixtures(blocks, ranked))
