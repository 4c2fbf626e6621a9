"""Quantize a graph to int8, entirely or except for the blocks that lose the most precision."""

import logging
import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, count

import nncf
import numpy as np
import openvino as ov
from nncf.quantization.advanced_parameters import OverflowFix

from jobs.database.model_builds import Precision
from jobs.models.openvino_model import PASS_SIZE, compile_graph
from jobs.progress import SILENT, Progress

CALIBRATION_IMAGES = 300
RANKING_IMAGES = 64
ATTENTION = {"Softmax", "ScaledDotProductAttention"}
WEIGHTED = {"Convolution", "GroupConvolution", "MatMul"}
MAX_BLOCKS = 32
"""In a graph with more blocks, neighboring blocks are merged, because ranking measures every block."""
MIN_INT8_SHARE = 0.25
"""Minimum share of multiply-adds in int8. Below it, converting between precisions costs more than int8 gains."""


def quantize(
    graph: ov.Model,
    calibration: np.ndarray,
    float_operations: Collection[str] = (),
    *,
    compress_weights: bool = True,
    progress: Progress = SILENT,
) -> ov.Model:
    """Quantize a trained graph with NNCF. ``calibration`` holds uint8 pixels [n, side, side, 3].

    Weights are quantized per channel to 7 bits. Processors without VNNI add two products in 16 bits, where 8-bit
    weights overflow, so outputs would depend on the machine. Transformers have outlier activations, so part of their
    range moves into the weights (SmoothQuant, Xiao et al. 2023) and attention stays in float. ``float_operations``,
    named as in the graph, also stay in float. Without ``compress_weights``, weights keep their float values and are
    rounded to the same int8 values at inference.
    """
    logging.getLogger("nncf").setLevel(logging.ERROR)
    is_transformer = any(operation.get_type_name() in ATTENTION for operation in graph.get_ops())
    numbers = count(1)

    def transform(pixels: np.ndarray) -> np.ndarray:
        # No total: NNCF reads the images several times, depending on the graph.
        progress.report("calibrating int8", next(numbers))
        return pixels[None]

    return nncf.quantize(
        graph,
        nncf.Dataset(list(calibration), transform),
        subset_size=len(calibration),
        preset=nncf.QuantizationPreset.MIXED,
        model_type=nncf.ModelType.TRANSFORMER if is_transformer else None,
        ignored_scope=nncf.IgnoredScope(names=sorted(float_operations)) if float_operations else None,
        advanced_parameters=nncf.AdvancedQuantizationParameters(
            overflow_fix=OverflowFix.ENABLE, backend_params={} if compress_weights else {"compress_weights": False}
        ),
    )


@dataclass(frozen=True)
class Block:
    """Consecutive operations, named as in the graph, and the multiply-adds per image of their weighted layers."""

    name: str
    operations: frozenset[str]
    multiply_adds: int


def list_blocks(graph: ov.Model) -> tuple[Block, ...]:
    """Split a graph with one input [n, side, side, 3] into at most 32 blocks, in order.

    The graph is split where the whole activation is a single tensor. Blocks are named after their weighted layers,
    counted from 1.
    """
    single = graph.clone()
    side = single.input(0).partial_shape[1].get_length()
    single.reshape([1, side, side, 3])
    data = _list_data_operations(single)
    parts = _merge_weightless(_split(data), data)
    size = max(1, math.ceil(len(parts) / MAX_BLOCKS))
    blocks: list[Block] = []
    layers = 0
    for start in range(0, len(parts), size):
        part = list(chain.from_iterable(parts[start : start + size]))
        costs = [_count_multiply_adds(operation) for operation in part if _has_weights(operation, data)]
        first, layers = layers + 1, layers + len(costs)
        name = f"layer {first}" if first == layers else f"layers {first} to {layers}"
        blocks.append(Block(name, frozenset(operation.get_friendly_name() for operation in part), sum(costs)))
    return tuple(blocks)


def _list_data_operations(graph: ov.Model) -> dict[str, ov.Node]:
    """Return the operations that depend on the pixels, not only on their shape, in execution order."""
    data: dict[str, ov.Node] = {}
    for operation in graph.get_ordered_ops():
        kind = operation.get_type_name()
        if kind == "Parameter" or (kind != "ShapeOf" and any(name in data for name in _list_sources(operation))):
            data[operation.get_friendly_name()] = operation
    return data


def _list_sources(operation: ov.Node) -> list[str]:
    return [value.get_node().get_friendly_name() for value in operation.input_values()]


def _split(data: dict[str, ov.Node]) -> list[list[ov.Node]]:
    """Split operations into parts. A part ends where later operations need the output of only one earlier operation."""
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


def _merge_weightless(parts: Iterable[list[ov.Node]], data: dict[str, ov.Node]) -> list[list[ov.Node]]:
    """Merge each part without weights into the part before it. Leading ones join the first part with weights."""
    merged: list[list[ov.Node]] = []
    started = False
    for part in parts:
        has_weights = any(_has_weights(operation, data) for operation in part)
        if merged and not (has_weights and started):
            merged[-1] += part
        else:
            merged.append(list(part))
        started = started or has_weights
    return merged if started else []


def _has_weights(operation: ov.Node, data: dict[str, ov.Node]) -> bool:
    kind: str = operation.get_type_name()
    return kind in WEIGHTED and _list_sources(operation)[1] not in data


def _count_multiply_adds(operation: ov.Node) -> int:
    """Count one multiply-add per weight and output position."""
    weights, output = _read_shape(operation.input(1)), _read_shape(operation.output(0))
    channels = output[-1] if operation.get_type_name() == "MatMul" else output[1]
    return math.prod(weights) * math.prod(output) // channels


def _read_shape(value: ov.Input | ov.Output) -> list[int]:
    """Return the shape. A dimension that depends on the image's content counts as 1; no common model has one."""
    return [length.get_length() if length.is_static else 1 for length in value.get_partial_shape()]


def rank_blocks(
    graph: ov.Model,
    blocks: Sequence[Block],
    calibration: np.ndarray,
    rest: Precision,
    progress: Progress = SILENT,
) -> tuple[Block, ...]:
    """Rank blocks by how much int8 error disappears per multiply-add if that block alone stays in float.

    ``calibration`` holds uint8 pixels [n, side, side, 3], of which the first 64 are used. ``rest`` is the precision of
    the float blocks. The error is the squared error of the outputs, relative to their squared norm.
    """
    pixels = calibration[:RANKING_IMAGES]
    quantized = quantize(graph, pixels, compress_weights=False, progress=progress)
    exact = _predict(graph, pixels, "fp32")

    def measure_error(candidate: ov.Model) -> float:
        return float(np.square(_predict(candidate, pixels, rest) - exact).sum() / np.square(exact).sum())

    error = measure_error(quantized)
    tracked = progress.track("ranking blocks by int8 error", blocks, len(blocks), unit="blocks")
    gains = [(error - measure_error(_keep_in_float(quantized, block))) / block.multiply_adds for block in tracked]
    return tuple(blocks[number] for number in np.argsort(np.negative(gains), kind="stable"))


def _keep_in_float(quantized: ov.Model, block: Block) -> ov.Model:
    """Copy the graph without the rounding of the inputs and weights of one block."""
    graph = quantized.clone()
    for operation in graph.get_ordered_ops():
        if operation.get_type_name() == "FakeQuantize":
            for consumer in operation.output(0).get_target_inputs():
                if consumer.get_node().get_friendly_name() in block.operations:
                    consumer.replace_source_output(operation.input_value(0))
    return graph


def _predict(graph: ov.Model, pixels: np.ndarray, precision: Precision) -> np.ndarray:
    fixed = graph.clone()
    fixed.reshape([PASS_SIZE, *pixels.shape[1:]])
    outputs: np.ndarray = compile_graph(ov.Core(), fixed, precision).infer(pixels)[0]
    return outputs


@dataclass(frozen=True)
class Int8Subset:
    """A partial quantization: ``float_operations``, named as in the graph, stay in float.

    ``int8_share`` is the share of multiply-adds in int8.
    """

    float_blocks: tuple[str, ...]
    float_operations: frozenset[str]
    int8_share: float


def list_int8_subsets(blocks: Sequence[Block], ranked: Sequence[Block]) -> tuple[Int8Subset, ...]:
    """List subsets, each with one more block of ``ranked`` in float, until too little is left in int8."""
    total = sum(block.multiply_adds for block in blocks)
    subsets: list[Int8Subset] = []
    for number in range(1, len(ranked)):
        kept = [block for block in blocks if block in ranked[:number]]
        share = 1 - sum(block.multiply_adds for block in kept) / total
        if share < MIN_INT8_SHARE:
            break
        names = tuple(block.name for block in kept)
        subsets.append(Int8Subset(names, frozenset().union(*(block.operations for block in kept)), share))
    return tuple(subsets)
