"""Where a graph may be cut into blocks, and which of them integers harm."""

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as ops

from jobs.models.openvino_model import BATCH_SIZE
from jobs.retrain.optimize.blocks import LEAST_SHARE, MOST_BLOCKS, list_blocks, list_mixtures, rank_blocks

SIDE = 4
WIDTH = 8
RANDOM = np.random.default_rng(7)


def draw_weights(*shape: int) -> np.ndarray:
    return RANDOM.normal(size=shape).astype(np.float32) / np.float32(np.sqrt(np.prod(shape[1:])))


def add_layer(value: ov.Output, width: int, before: int = WIDTH) -> ov.Output:
    """A convolution of one pixel, and a ReLU."""
    layer = ops.convolution(value, ops.constant(draw_weights(width, before, 1, 1)), [1, 1], [0, 0], [0, 0], [1, 1])
    return ops.relu(layer).output(0)


def finish_graph(pixels: ov.Node, value: ov.Output) -> ov.Model:
    """Means of the places, and three outputs of them; the size of the batch is taken from the pixels' shape."""
    count = ops.gather(ops.shape_of(pixels), ops.constant([0]), ops.constant(0))
    means = ops.reduce_mean(value, ops.constant([2, 3]))
    rows = ops.reshape(means, ops.concat([count, ops.constant(np.array([WIDTH]))], 0), special_zero=False)
    graph = ov.Model([ops.matmul(rows, ops.constant(draw_weights(3, WIDTH)), False, True)], [pixels], "graph")
    for number, operation in enumerate(graph.get_ordered_ops()):
        operation.set_friendly_name(f"{operation.get_type_name()}_{number}")
    return graph


def take_pixels() -> tuple[ov.Node, ov.Output]:
    pixels = ops.parameter([-1, SIDE, SIDE, 3], ov.Type.u8)
    return pixels, ops.transpose(ops.convert(pixels, "f32"), ops.constant([0, 3, 1, 2])).output(0)


def make_residual_graph() -> ov.Model:
    """A stem, a residual block of two layers and a third beside them, and a head."""
    pixels, value = take_pixels()
    stem = add_layer(value, WIDTH, 3)
    inner = add_layer(add_layer(stem, 2 * WIDTH), WIDTH, 2 * WIDTH)
    return finish_graph(pixels, ops.add(inner, add_layer(stem, WIDTH)).output(0))


def make_chain(layers: int) -> ov.Model:
    pixels, value = take_pixels()
    value = add_layer(value, WIDTH, 3)
    for _ in range(layers - 2):
        value = add_layer(value, WIDTH)
    return finish_graph(pixels, value)


def test_a_residual_block_is_one_block() -> None:
    blocks = list_blocks(make_residual_graph())
    assert [block.name for block in blocks] == ["layer 1", "layers 2 to 4", "layer 5"]
    places = SIDE * SIDE
    assert [block.multiply_adds for block in blocks] == [
        places * 3 * WIDTH,
        places * (2 * 2 * WIDTH * WIDTH + WIDTH * WIDTH),
        3 * WIDTH,
    ]
    assert [sum("Convolution" in name for name in block.operations) for block in blocks] == [1, 3, 0]


def test_every_operation_on_the_photo_is_in_one_block() -> None:
    graph = make_residual_graph()
    blocks = list_blocks(graph)
    names = [name for block in blocks for name in block.operations]
    assert len(names) == len(set(names))
    shapes = {"Constant", "ShapeOf", "Gather", "Concat"}
    assert set(names) == {
        operation.get_friendly_name() for operation in graph.get_ops() if operation.get_type_name() not in shapes
    }


@pytest.mark.parametrize(("layers", "blocks"), [(5, 5), (MOST_BLOCKS, MOST_BLOCKS), (MOST_BLOCKS + 8, 20)])
def test_a_deep_graph_has_no_more_blocks_than_are_worth_measuring(layers: int, blocks: int) -> None:
    found = list_blocks(make_chain(layers))
    assert len(found) == blocks
    assert found[-1].name.endswith(f" {layers}")


def add_uneven_layers(value: ov.Output) -> ov.Output:
    """Two channels 4096 times as wide as the others, and two layers that take them and make them small again."""
    wide = draw_weights(WIDTH, WIDTH, 1, 1)
    wide[:2] *= 4096
    outliers = ops.relu(ops.convolution(value, ops.constant(wide), [1, 1], [0, 0], [0, 0], [1, 1]))
    sides = []
    for _ in range(2):
        narrow = draw_weights(WIDTH, WIDTH, 1, 1)
        narrow[:, :2] /= 4096
        sides.append(ops.convolution(outliers, ops.constant(narrow), [1, 1], [0, 0], [0, 0], [1, 1]))
    return ops.relu(ops.add(*sides)).output(0)


def test_the_block_that_takes_outliers_is_ranked_first() -> None:
    pixels, value = take_pixels()
    value = add_uneven_layers(add_layer(add_layer(value, WIDTH, 3), WIDTH))
    graph = finish_graph(pixels, add_layer(value, WIDTH))
    blocks = list_blocks(graph)
    photos = RANDOM.integers(0, 256, (4 * BATCH_SIZE, SIDE, SIDE, 3), dtype=np.uint8)
    ranked = rank_blocks(graph, blocks, photos, "fp32")
    assert [block.name for block in blocks] == ["layer 1", "layer 2", "layer 3", "layers 4 to 5", "layer 6", "layer 7"]
    assert ranked[0].name == "layers 4 to 5"
    assert set(ranked) == set(blocks)
    assert rank_blocks(graph, blocks, photos, "fp32") == ranked


def test_mixtures_leave_ever_more_in_float_as_long_as_integers_are_worth_it() -> None:
    blocks = list_blocks(make_residual_graph())
    stem, block, head = blocks
    mixtures = list_mixtures(blocks, [head, stem, block])
    assert [mixture.float_blocks for mixture in mixtures] == [("layer 5",), ("layer 1", "layer 5")]
    total = sum(block.multiply_adds for block in blocks)
    assert [mixture.int8_share for mixture in mixtures] == [1 - 24 / total, 1 - (24 + stem.multiply_adds) / total]
    assert mixtures[1].operations == head.operations | stem.operations
    assert min(mixture.int8_share for mixture in mixtures) > LEAST_SHARE
    assert list_mixtures(blocks, [block, stem, head]) == ()
