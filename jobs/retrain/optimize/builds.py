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
from jobs.models.image_model import ModelBuild
from jobs.models.openvino_model import list_float_precisions
from jobs.retrain.optimize.blocks import Int8Subset, list_blocks, list_mixtures, rank_blocks
from jobs.retrain.optimize.context import OptimizationContext
from jobs.retrain.optimize.convert import convert_checkpoint, save_graph
from jobs.retrain.optimize.quantize import quantize
from jobs.settings import Settings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServingOption:
    """What a version would be served as; ``build`` writes what that takes into a folder that does not exist yet."""

    production: ModelBuild
    build: Callable[[Path], object]


def convert(checkpoint: Path, kind: ModelKind, device: Device, settings: Settings) -> ov.Model | None:
    """The checkpoint as a graph; None where torch serves, since a GPU is there, a setting asks for it, or torch.export
    or OpenVINO cannot express what the model does.
    """
    engine = settings.compute.engine if settings.compute.engine != "auto" else "torch" if device.is_cuda else "openvino"
    if engine == "torch":
        return None
    try:
        return convert_checkpoint(checkpoint, kind)
    except RuntimeError as error:
        log.warning("the %s cannot become a graph, and stays in torch: %s", kind, first_line(error))
        return None


def list_torch_ways(context: OptimizationContext, settings: Settings) -> Iterator[ServingOption]:
    """The precision of the device or of the settings, where that is not float32."""
    native = choose_device(settings.compute.device, settings.compute.precision).precision
    if native != "fp32":
        production = replace(context.production, precision=native, rest_precision=native)
        yield ServingOption(production, lambda folder: shutil.copytree(context.checkpoint, folder))


def list_float_ways(context: OptimizationContext, settings: Settings, graph: ov.Model) -> Iterator[ServingOption]:
    """The graph in the precisions of floats that this processor computes in, the fastest first."""
    for name in ("fp32",) if settings.compute.precision == "fp32" else list_float_precisions():
        production = replace(context.production, engine="openvino", precision=name, rest_precision=name)
        yield ServingOption(production, lambda folder: save_graph(graph, folder))


def quantize_whole(context: OptimizationContext, graph: ov.Model) -> ServingOption:
    """The graph in int8, and in float32 what NNCF does not quantize."""
    production = replace(context.production, engine="openvino", precision="int8", rest_precision="fp32")

    def build(folder: Path) -> None:
        save_graph(quantize(graph, context.load_calibration(), progress=context.progress), folder)

    return ServingOption(production, build)


def list_mixed_ways(context: OptimizationContext, graph: ov.Model) -> tuple[ServingOption, ...]:
    """The graph in int8 but for its most sensitive blocks, ever more of them, which are in the fastest float."""
    rest = list_float_precisions()[0]
    calibration = context.load_calibration()
    blocks = list_blocks(graph)
    served = replace(context.production, engine="openvino", precision="int8", rest_precision=rest)

    def make_way(mixture: Int8Subset) -> ServingOption:
        production = replace(served, int8_share=mixture.int8_share, float_blocks=mixture.float_blocks)

        def build(folder: Path) -> None:
            save_graph(quantize(graph, calibration, mixture.operations, progress=context.progress), folder)

        return ServingOption(production, build)

    ranked = rank_blocks(graph, blocks, calibration, rest, context.progress)
    return tuple(make_way(mixture) for mixture in list_mixtures(blocks, ranked))
