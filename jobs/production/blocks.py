"""The blocks of a graph: what lies between two places through which all of a photo passes as one tensor.

So a residual or a transformer block is one or two, and so is each layer of a plain chain.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain

import openvino as ov

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
