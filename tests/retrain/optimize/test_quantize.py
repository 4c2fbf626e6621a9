"""Splitting a graph into blocks, and ranking them by int8 error."""

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as ops

from jobs.models.openvino_model import PASS_SIZE
from jobs.retrain.optimize.quantize import (
    MAX_BLOCKS,
    MIN_INT8_SHARE,
    list_blocks,
    list_int8_subsets,
    rank_blocks,
)

SIDE = 4
WIDTH = 8
RANDOM = np.random.default_rng(7)


def draw_weights(*shape: int) -> np.ndarray:
    return RANDOM.normal(size=shape).astype(np.float32) / np.float32(np.sqrt(np.prod(shape[1:])))


def add_layer(value: ov.Output, width: int, before: int = WIDTH) -> ov.Output:
    """Add a 1x1 convolution and a ReLU."""
    layer = ops.convolution(value, ops.constant(draw_weights(width, before, 1, 1)), [1, 1], [0, 0], [0, 0], [1, 1])
    return ops.relu(layer).output(0)


def finish_graph(pixels: ov.Node, value: ov.Output) -> ov.Model:
    """Add mean pooling and a layer of three outputs. The batch size is read from the shape of the pixels."""
    count = ops.gather(ops.shape_of(pixels), ops.constant([0]), ops.constant(0))
    means = ops.reduce_mean(value, ops.constant([2, 3]))
    rows = ops.reshape(means, ops.concat([count, ops.constant(np.array([WIDTH]))], 0), special_zero=False)
    graph = ov.Model([ops.matmul(rows, ops.constant(draw_weights(3, WIDTH)), False, True)], [pixels], "graph")
    for number, operation in enumerate(graph.get_ordered_ops()):
        operation.set_friendly_name(f"{operation.get_type_name()}_{number}")
    return graph


def make_input() -> tuple[ov.Node, ov.Output]:
    pixels = ops.parameter([-1, SIDE, SIDE, 3], ov.Type.u8)
    return pixels, ops.transpose(ops.convert(pixels, "f32"), ops.constant([0, 3, 1, 2])).output(0)


def make_residual_graph() -> ov.Model:
    """Make a stem, a residual block of two layers with one layer on its shortcut, and a head."""
    pixels, value = make_input()
    stem = add_layer(value, WIDTH, 3)
    inner = add_layer(add_layer(stem, 2 * WIDTH), WIDTH, 2 * WIDTH)
    return finish_graph(pixels, ops.add(inner, add_layer(stem, WIDTH)).output(0))


def make_chain(layers: int) -> ov.Model:
    pixels, value = make_input()
    value = add_layer(value, WIDTH, 3)
    for _ in range(layers - 2):
        value = add_layer(value, WIDTH)
    return finish_graph(pixels, value)


def test_a_residual_block_is_one_block() -> None:
    blocks = list_blocks(make_residual_graph())
    assert [block.name for block in blocks] == ["layer 1", "layers 2 to 4", "layer 5"]
    positions = SIDE * SIDE
    assert [block.multiply_adds for block in blocks] == [
        positions * 3 * WIDTH,
        positions * (2 * 2 * WIDTH * WIDTH + WIDTH * WIDTH),
        3 * WIDTH,
    ]
    assert [sum("Convolution" in name for name in block.operations) for block in blocks] == [1, 3, 0]


def test_every_operation_on_the_image_belongs_to_one_block() -> None:
    graph = make_residual_graph()
    blocks = list_blocks(graph)
    names = [name for block in blocks for name in block.operations]
    assert len(names) == len(set(names))
    shapes = {"Constant", "ShapeOf", "Gather", "Concat"}
    assert set(names) == {
        operation.get_friendly_name() for operation in graph.get_ops() if operation.get_type_name() not in shapes
    }


@pytest.mark.parametrize(("layers", "blocks"), [(5, 5), (MAX_BLOCKS, MAX_BLOCKS), (MAX_BLOCKS + 8, 20)])
def test_neighboring_blocks_of_a_deep_graph_are_merged(layers: int, blocks: int) -> None:
    found = list_blocks(make_chain(layers))
    assert len(found) == blocks
    assert found[-1].name.endswith(f" {layers}")


def add_uneven_layers(value: ov.Output) -> ov.Output:
    """Scale two channels up 4096 times, and scale them down again in the two layers that read them."""
    wide = draw_weights(WIDTH, WIDTH, 1, 1)
    wide[:2] *= 4096
    outliers = ops.relu(ops.convolution(value, ops.constant(wide), [1, 1], [0, 0], [0, 0], [1, 1]))
    sides = []
    for _ in range(2):
        narrow = draw_weights(WIDTH, WIDTH, 1, 1)
        narrow[:, :2] /= 4096
        sides.append(ops.convolution(outliers, ops.constant(narrow), [1, 1], [0, 0], [0, 0], [1, 1]))
    return ops.relu(ops.add(*sides)).output(0)


def test_the_block_that_reads_outliers_is_ranked_first() -> None:
    pixels, value = make_input()
    value = add_uneven_layers(add_layer(add_layer(value, WIDTH, 3), WIDTH))
    graph = finish_graph(pixels, add_layer(value, WIDTH))
    blocks = list_blocks(graph)
    images = RANDOM.integers(0, 256, (4 * PASS_SIZE, SIDE, SIDE, 3), dtype=np.uint8)
    ranked = rank_blocks(graph, blocks, images, "fp32")
    assert [block.name for block in blocks] == ["layer 1", "layer 2", "layer 3", "layers 4 to 5", "layer 6", "layer 7"]
    assert ranked[0].name == "layers 4 to 5"
    assert set(ranked) == set(blocks)
    assert rank_blocks(graph, blocks, images, "fp32") == ranked


def test_int8_subsets_shrink_block_by_block_down_to_the_minimum_share() -> None:
    blocks = list_blocks(make_residual_graph())
    stem, block, head = blocks
    subsets = list_int8_subsets(blocks, [head, stem, block])
    assert [subset.float_blocks for subset in subsets] == [("layer 5",), ("layer 1", "layer 5")]
    total = sum(block.multiply_adds for block in blocks)
    assert [subset.int8_share for subset in subsets] == [1 - 24 / total, 1 - (24 + stem.multiply_adds) / total]
    assert subsets[1].float_operations == head.operations | stem.operations
    assert min(subset.int8_share for subset in subsets) > MIN_INT8_SHARE
    assert list_int8_subsets(blocks, [block, stem, head]) == ()
