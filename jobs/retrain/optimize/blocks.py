"""Split a graph into blocks and choose the largest set of them that may be computed in int8."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import openvino as ov

from jobs.models.image_model import Precision
from jobs.models.openvino_model import BATCH_SIZE, compile_graph
from jobs.progress import SILENT, Progress
from jobs.retrain.optimize.quantize import quantize

WEIGHTED = {"Convolution", "GroupConvolution", "MatMul"}
MOST_BLOCKS = 32
"""Of more, neighbours are taken together: what each costs is measured."""


@dataclass(frozen=True)
class Block:
    """Operations by their names in the graph; ``multiply_adds`` are those of its layers with weights, for one photo."""

    name: str
    operations: frozenset[str]
    multiply_adds: int


def list_blocks(graph: ov.Model) -> tuple[Block, ...]:
    """The blocks of a graph with one input [n, side, side, 3], in order, at most 32.

    They are named by their layers with weights, counted along the graph from 1.
    """
    single = graph.clone()
    side = single.input(0).partial_shape[1].get_length()
    single.reshape([1, side, side, 3])
    data = _list_data(single)
    parts = _join_weightless(_cut(data), data)
    size = max(1, math.ceil(len(parts) / MOST_BLOCKS))
    blocks: list[Block] = []
    layers = 0
    for start in range(0, len(parts), size):
        part = list(chain.from_iterable(parts[start : start + size]))
        costs = [_count_multiply_adds(operation) for operation in part if _has_weights(operation, data)]
        first, layers = layers + 1, layers + len(costs)
        name = f"layer {first}" if first == layers else f"layers {first} to {layers}"
        blocks.append(Block(name, frozenset(operation.get_friendly_name() for operation in part), sum(costs)))
    return tuple(blocks)


def _list_data(graph: ov.Model) -> dict[str, ov.Node]:
    """What depends on the photo, and not on its shape alone, in the order of computing."""
    data: dict[str, ov.Node] = {}
    for operation in graph.get_ordered_ops():
        kind = operation.get_type_name()
        if kind == "Parameter" or (kind != "ShapeOf" and any(name in data for name in _list_sources(operation))):
            data[operation.get_friendly_name()] = operation
    return data


def _list_sources(operation: ov.Node) -> list[str]:
    return [value.get_node().get_friendly_name() for value in operation.input_values()]


def _cut(data: dict[str, ov.Node]) -> list[list[ov.Node]]:
    """End a part wherever only one operation is left of whose outputs something is still to be computed."""
    uses = dict.fromkeys(data, 0)
    for operation in data.values():
        for source in _list_sources(operation):
            if source in uses:
                uses[source] += 1
    parts: list[list[ov.Node]] = [[]]
    alive: set[str] = set()
    for name, operation in data.items():
        for source in _list_sources(operation):
            if source in uses:
                uses[source] -= 1
        parts[-1].append(operation)
        alive = {living for living in alive | {name} if uses[living]}
        if len(alive) == 1:
            parts.append([])
    return parts


def _join_weightless(parts: Iterable[list[ov.Node]], data: dict[str, ov.Node]) -> list[list[ov.Node]]:
    """What has no weights belongs to what comes before it, and at the start to what follows."""
    joined: list[list[ov.Node]] = []
    started = False
    for part in parts:
        has_weights = any(_has_weights(operation, data) for operation in part)
        if joined and not (has_weights and started):
            joined[-1] += part
        else:
            joined.append(list(part))
        started = started or has_weights
    return joined if started else []


def _has_weights(operation: ov.Node, data: dict[str, ov.Node]) -> bool:
    kind: str = operation.get_type_name()
    return kind in WEIGHTED and _list_sources(operation)[1] not in data


def _count_multiply_adds(operation: ov.Node) -> int:
    """Each weight is used once for each place of the output."""
    weights, output = _read_shape(operation.input(1)), _read_shape(operation.output(0))
    channels = output[-1] if operation.get_type_name() == "MatMul" else output[1]
    return math.prod(weights) * math.prod(output) // channels


def _read_shape(value: ov.Input | ov.Output) -> list[int]:
    """A length that depends on the photo's content, as none of a usual model does, counts as 1."""
    return [length.get_length() if length.is_static else 1 for length in value.get_partial_shape()]


LEAST_SHARE = 0.25
"""Of the multiply-adds in int8: below it, going back and forth between the precisions eats what integers gain."""


@dataclass(frozen=True)
class Int8Subset:
    """``operations``, by their names in the graph, are left in float; the rest is ``int8_share`` of multiply-adds."""

    float_blocks: tuple[str, ...]
    operations: frozenset[str]
    int8_share: float


def list_mixtures(blocks: Sequence[Block], ranked: Sequence[Block]) -> tuple[Int8Subset, ...]:
    """Leave ever more blocks of a graph in float, in the order of ``ranked``, as long as int8 is worth it."""
    total = sum(block.multiply_adds for block in blocks)
    mixtures: list[Int8Subset] = []
    for count in range(1, len(ranked)):
        left = [block for block in blocks if block in ranked[:count]]
        share = 1 - sum(block.multiply_adds for block in left) / total
        if share < LEAST_SHARE:
            break
        names = tuple(block.name for block in left)
        mixtures.append(Int8Subset(names, frozenset().union(*(block.operations for block in left)), share))
    return tuple(mixtures)


RANKING_PHOTOS = 64


def rank_blocks(
    graph: ov.Model,
    blocks: Sequence[Block],
    calibration: np.ndarray,
    rest: Precision,
    progress: Progress = SILENT,
) -> tuple[Block, ...]:
    """Order blocks by the noise of int8 that goes when one of them alone is not rounded, for each of its multiply-adds.

    ``calibration`` are uint8 pixels [n, side, side, 3], of which some are asked for; ``rest`` is the precision of what
    is not in int8. Noise is the squared error of the outputs, as a share of their own squares.
    """
    pixels = calibration[:RANKING_PHOTOS]
    quantized = quantize(graph, pixels, stores_integers=False, progress=progress)
    exact = _ask(graph, pixels, "fp32")

    def measure_noise(candidate: ov.Model) -> float:
        return float(np.square(_ask(candidate, pixels, rest) - exact).sum() / np.square(exact).sum())

    noise = measure_noise(quantized)
    ranked = progress.track("ranking blocks by their noise in int8", blocks, len(blocks), unit="blocks")
    gains = [(noise - measure_noise(_spare(quantized, block))) / block.multiply_adds for block in ranked]
    return tuple(blocks[number] for number in np.argsort(np.negative(gains), kind="stable"))


def _spare(quantized: ov.Model, block: Block) -> ov.Model:
    """A copy in which nothing that a block takes is rounded, neither weights nor what comes from other operations."""
    graph = quantized.clone()
    for operation in graph.get_ordered_ops():
        if operation.get_type_name() == "FakeQuantize":
            for taker in operation.output(0).get_target_inputs():
                if taker.get_node().get_friendly_name() in block.operations:
                    taker.replace_source_output(operation.input_value(0))
    return graph


def _ask(graph: ov.Model, pixels: np.ndarray, precision: Precision) -> np.ndarray:
    fixed = graph.clone()
    fixed.reshape([BATCH_SIZE, *pixels.shape[1:]])
    outputs: np.ndarray = compile_graph(ov.Core(), fixed, precision).infer(pixels)[0]
    return outputs
