"""Run models on a CPU as OpenVINO graphs, which need neither torch nor the weights of the checkpoint."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from queue import SimpleQueue
from threading import Lock
from typing import Any

import numpy as np
import openvino as ov
from openvino import opset13 as opset

from jobs.cores import count_cores
from jobs.database.model_builds import DeviceClass, EngineName, Precision
from jobs.errors import ConfigurationError
from jobs.images.geometry import Geometry
from jobs.models.image_model import GRAPH_FILE, ModelBuild, choose_float, finish

PASS_SIZE = 8
"""Images per pass. It is fixed, so the graph is planned once, and small, so activations stay in the caches."""
PRECISION_HINTS: dict[Precision, str] = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
FIRST_PASS = Lock()
"""Lock for the first pass of each graph. The Python binding of OpenVINO initializes itself in the first pass of a
process, and deadlocks if two threads do this at the same time."""


@dataclass(frozen=True)
class Graph:
    """A compiled graph with one uint8 input [pass_size, side, side, 3]. Each concurrent pass has its own request."""

    requests: "SimpleQueue[ov.InferRequest]"
    passes: int
    pass_size: int

    def infer(self, pixels: np.ndarray) -> list[np.ndarray]:
        """Turn uint8 pixels [n, side, side, 3] of at least one image into float32 [n, outputs] for each output."""
        starts = range(0, len(pixels), self.pass_size)
        parts = [self._pass(pixels[start : start + self.pass_size]) for start in starts]
        return [np.concatenate(outputs) for outputs in zip(*parts, strict=True)]

    def _pass(self, pixels: np.ndarray) -> list[np.ndarray]:
        count = len(pixels)
        if count < self.pass_size:
            rest = np.zeros((self.pass_size - count, *pixels.shape[1:]), dtype=np.uint8)
            pixels = np.concatenate([pixels, rest])
        request = self.requests.get()
        try:
            results = request.infer({0: np.ascontiguousarray(pixels)}, share_inputs=True)
            return [results[output][:count].copy() for output in range(len(results))]
        finally:
            self.requests.put(request)


class OpenVinoModel:
    """A model with its own graph, which is compiled on first use."""

    engine: EngineName = "openvino"
    device_class: DeviceClass = "cpu"

    def __init__(self, folder: Path, build: ModelBuild, pass_size: int = PASS_SIZE) -> None:
        self.folder = folder
        self.build = build
        self._pass_size = pass_size
        self._lock = Lock()
        self._compiled: Graph | None = None

    @property
    def description(self) -> str:
        """Engine and precision as text."""
        return self.build.describe()

    @property
    def geometry(self) -> Geometry:
        """How images are resized for this model."""
        return self.build.geometry

    @property
    def categories(self) -> tuple[str, ...]:
        """The categories in the order of a classifier's outputs."""
        return self.build.categories

    @property
    def batch_size(self) -> int:
        """The number of images in two passes."""
        return 2 * self._pass_size

    @property
    def passes(self) -> int:
        """One single-threaded pass per core."""
        return count_cores()

    def predict(self, pixels: np.ndarray) -> np.ndarray:
        """Turn uint8 pixels [n, side, side, 3] into float32 [n, outputs]: calibrated probabilities or unit vectors."""
        return finish(self.build, self._graph().infer(pixels)[0])

    def _graph(self) -> Graph:
        with self._lock:
            if self._compiled is None:
                self._compiled = compile_graphs([self.folder], self.build.rest_precision, self._pass_size)
            return self._compiled


def load_openvino_model(folder: Path, build: ModelBuild, pass_size: int | None = None) -> OpenVinoModel:
    """Check that a folder holds a graph, and return it as a model with ``pass_size`` images per pass.

    Float layers run in float32 if this processor does not support their precision natively.

    Raises:
        ConfigurationError: the folder holds no graph.
    """
    _read_graph(ov.Core(), folder / GRAPH_FILE)
    if build.rest_precision != "fp32":
        build = build.with_float(choose_float(build.rest_precision, list_float_precisions()))
    return OpenVinoModel(folder, build, pass_size or PASS_SIZE)


def compile_graphs(folders: Sequence[Path], precision: Precision, pass_size: int = PASS_SIZE) -> Graph:
    """Compile the graphs of several folders as one graph with a shared input. Float layers run in ``precision``.

    Raises:
        ConfigurationError: a folder holds no graph.
    """
    core = ov.Core()
    graph = _share_input([_read_graph(core, folder / GRAPH_FILE) for folder in folders])
    side = graph.input(0).partial_shape[1].get_length()
    graph.reshape([pass_size, side, side, 3])
    return compile_graph(core, graph, precision)


def compile_graph(core: ov.Core, graph: ov.Model, precision: Precision) -> Graph:
    """Compile a graph of fixed shape, with one single-threaded pass per core, and run it once."""
    cores = count_cores()
    settings: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": PRECISION_HINTS[precision],
        "NUM_STREAMS": cores,
        "INFERENCE_NUM_THREADS": cores,
        # With pinning, two processes could share one core and leave another idle.
        "ENABLE_CPU_PINNING": False,
    }
    requests: SimpleQueue[ov.InferRequest] = SimpleQueue()
    with FIRST_PASS:
        compiled = core.compile_model(graph, "CPU", settings)
        for _ in range(cores):
            requests.put(compiled.create_infer_request())
        shape = list(compiled.input(0).shape)
        compiled_graph = Graph(requests, cores, pass_size=shape[0])
        compiled_graph.infer(np.zeros(shape, dtype=np.uint8))
    return compiled_graph


@cache
def list_float_precisions() -> tuple[Precision, ...]:
    """Return the float precisions that this processor supports, fastest first."""
    core = ov.Core()
    if "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        return ("fp32",)
    # The kernels respect ONEDNN_MAX_CPU_ISA, but the capabilities do not. Compile a small product to find out.
    numbers = opset.parameter([1, 64], ov.Type.f32)
    product = opset.matmul(numbers, opset.constant(np.ones((64, 64), dtype=np.float32)), False, False)
    try:
        core.compile_model(ov.Model([product], [numbers], "probe"), "CPU", {"INFERENCE_PRECISION_HINT": "bf16"})
    except RuntimeError:
        return ("fp32",)
    return ("bf16", "fp32")


def _read_graph(core: ov.Core, file: Path) -> ov.Model:
    if not file.is_file():
        raise ConfigurationError(f"{file.parent} holds no {GRAPH_FILE}. Run `catalog optimize` again")
    try:
        return core.read_model(file)
    except RuntimeError as error:
        raise ConfigurationError(f"{file} is not an OpenVINO graph: {str(error).splitlines()[0]}") from None


def _share_input(graphs: Sequence[ov.Model]) -> ov.Model:
    """Join graphs into one that has the input of the first and the outputs of all, in order."""
    first, *others = graphs
    shared = first.get_parameters()[0]
    for graph in others:
        for consumer in list(graph.get_parameters()[0].output(0).get_target_inputs()):
            consumer.replace_source_output(shared.output(0))
    return ov.Model([result for graph in graphs for result in graph.get_results()], [shared], "catalog")
