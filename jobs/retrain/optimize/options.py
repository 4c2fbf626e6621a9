"""Define the builds that this machine can make of a checkpoint."""

import logging
import shutil
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import openvino as ov

from jobs.errors import JobError, first_line
from jobs.models.device import Device, choose_device
from jobs.models.image_model import ModelBuild, write_build
from jobs.models.openvino_model import list_float_precisions
from jobs.progress import SILENT, Progress
from jobs.retrain.optimize.convert import convert_unless_torch, save_graph
from jobs.retrain.optimize.export import export_checkpoint
from jobs.retrain.optimize.quantize import Int8Subset, list_blocks, list_int8_subsets, quantize, rank_blocks
from jobs.settings import ComputeSettings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServingOption:
    """A build to try. ``write`` writes its files into a folder that does not exist yet."""

    build: ModelBuild
    write: Callable[[Path], object]

    def make(self, folder: Path) -> None:
        """Write the build with its record."""
        self.write(folder)
        write_build(folder, self.build)


@dataclass(frozen=True)
class ServingOptions:
    """The options for a checkpoint, whose record in float32 is ``build``. Without a ``graph``, torch serves it."""

    checkpoint: Path
    build: ModelBuild
    compute: ComputeSettings
    graph: ov.Model | None
    progress: Progress

    @property
    def allow_int8(self) -> bool:
        """Whether there is a graph to quantize, and the settings allow it."""
        return self.graph is not None and self.compute.precision in {"auto", "int8"}

    def quantize_all(self, calibration: np.ndarray) -> ServingOption:
        """Return the graph in int8. What NNCF cannot quantize stays in float32.

        ``calibration`` holds uint8 pixels [n, side, side, 3] of train images.
        """
        build = replace(self.build, engine="openvino", precision="int8", rest_precision="fp32")
        return ServingOption(build, partial(self._quantize, calibration, ()))

    def quantize_parts(self, calibration: np.ndarray) -> tuple[ServingOption, ...]:
        """List int8 builds. Each keeps one more of the most sensitive blocks in the fastest float precision."""
        assert self.graph is not None
        rest = list_float_precisions()[0]
        blocks = list_blocks(self.graph)
        int8 = replace(self.build, engine="openvino", precision="int8", rest_precision=rest)

        def make_option(subset: Int8Subset) -> ServingOption:
            build = replace(int8, int8_share=subset.int8_share, float_blocks=subset.float_blocks)
            return ServingOption(build, partial(self._quantize, calibration, subset.float_operations))

        ranked = rank_blocks(self.graph, blocks, calibration, rest, self.progress)
        return tuple(make_option(subset) for subset in list_int8_subsets(blocks, ranked))

    def _quantize(self, calibration: np.ndarray, float_operations: Collection[str], folder: Path) -> None:
        assert self.graph is not None
        save_graph(quantize(self.graph, calibration, float_operations, progress=self.progress), folder)

    def list_floats(self) -> Iterator[ServingOption]:
        """List the builds in float, fastest first. The last one is in float32."""
        exact = choose_device(self.compute.device, "fp32")
        graph = self.graph
        if graph is None:
            native = choose_device(self.compute.device, self.compute.precision)
            yield from (self._export(device) for device in dict.fromkeys((native, exact)))
            return
        for name in ("fp32",) if self.compute.precision == "fp32" else list_float_precisions():
            build = replace(self.build, engine="openvino", precision=name, rest_precision=name)
            yield ServingOption(build, lambda folder: save_graph(graph, folder))

    def keep_checkpoint(self) -> ServingOption:
        """Return the checkpoint itself, which Transformers serves in float32."""
        return ServingOption(self.build, lambda folder: shutil.copytree(self.checkpoint, folder))

    def _export(self, device: Device) -> ServingOption:
        def write(folder: Path) -> None:
            try:
                export_checkpoint(self.checkpoint, self.build.kind, device, folder)
            except JobError:
                raise
            except Exception as error:  # noqa: BLE001 - tracing runs the code of the model, which may raise anything
                log.warning("torch.export does not support this model, Transformers serves it: %s", first_line(error))
                shutil.rmtree(folder, ignore_errors=True)
                shutil.copytree(self.checkpoint, folder)

        return ServingOption(replace(self.build, precision=device.precision, rest_precision=device.precision), write)


def open_options(
    checkpoint: Path, build: ModelBuild, compute: ComputeSettings, progress: Progress = SILENT
) -> ServingOptions:
    """Convert a checkpoint to a graph, unless torch serves it on this machine."""
    exact = choose_device(compute.device, "fp32")
    graph = convert_unless_torch(checkpoint, build.kind, exact, compute.engine)
    return ServingOptions(checkpoint, build, compute, graph, progress)
