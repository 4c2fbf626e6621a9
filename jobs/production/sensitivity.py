"""Which blocks of a graph lose most by being computed in integers."""

from collections.abc import Sequence

import numpy as np
import openvino as ov

from jobs.models.openvino_model import BATCH_SIZE, compile_graph
from jobs.models.production import Precision
from jobs.production.blocks import Block
from jobs.production.quantise import quantise
from jobs.progress import SILENT, Progress

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
    quantised = quantise(graph, pixels, stores_integers=False, progress=progress)
    exact = _ask(graph, pixels, "fp32")

    def measure_noise(candidate: ov.Model) -> float:
        return float(np.square(_ask(candidate, pixels, rest) - exact).sum() / np.square(exact).sum())

    noise = measure_noise(quantised)
    ranked = progress.track("ranking blocks by their noise in int8", blocks, len(blocks), unit="blocks")
    gains = [(noise - measure_noise(_spare(quantised, block))) / block.multiply_adds for block in ranked]
    return tuple(blocks[number] for number in np.argsort(np.negative(gains), kind="stable"))


def _spare(quantised: ov.Model, block: Block) -> ov.Model:
    """A copy in which nothing that a block takes is rounded, neither weights nor what comes from other operations."""
    graph = quantised.clone()
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
