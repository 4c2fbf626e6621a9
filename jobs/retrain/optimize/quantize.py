"""Weights and activations of a graph become integers of 8 bits, after a look at some photos."""

import logging
from collections.abc import Collection
from itertools import count

import nncf
import numpy as np
import openvino as ov
from nncf.quantization.advanced_parameters import OverflowFix

from jobs.progress import SILENT, Progress

CALIBRATION_PHOTOS = 300
ATTENTION = {"Softmax", "ScaledDotProductAttention"}


def quantize(
    graph: ov.Model,
    calibration: np.ndarray,
    left_in_float: Collection[str] = (),
    *,
    stores_integers: bool = True,
    progress: Progress = SILENT,
) -> ov.Model:
    """Quantise a graph after training (NNCF); the ranges are those that uint8 pixels [n, side, side, 3] lead to.

    Weights have a scale for each channel, and 7 bits: without VNNI a processor adds two products in 16 bits, which
    those of 8 bits overflow, so that answers would depend on the machine. In transformers, whose activations have
    outliers, a part of their range is moved into the weights (SmoothQuant, Xiao et al. 2023) and attention itself stays
    in floats, as do the operations whose names are ``left_in_float``. Without ``stores_integers`` weights stay as they
    were, and are rounded when the graph is computed, to the same values.
    """
    logging.getLogger("nncf").setLevel(logging.ERROR)
    is_transformer = any(operation.get_type_name() in ATTENTION for operation in graph.get_ops())
    numbers = count(1)

    def take(pixels: np.ndarray) -> np.ndarray:
        # NNCF takes photos more than once; how often depends on the graph.
        progress.report("calibrating int8", next(numbers))
        return pixels[None]

    return nncf.quantize(
        graph,
        nncf.Dataset(list(calibration), take),
        subset_size=len(calibration),
        preset=nncf.QuantizationPreset.MIXED,
        model_type=nncf.ModelType.TRANSFORMER if is_transformer else None,
        ignored_scope=nncf.IgnoredScope(names=sorted(left_in_float)) if left_in_float else None,
        advanced_parameters=nncf.AdvancedQuantizationParameters(
            overflow_fix=OverflowFix.ENABLE, backend_params={} if stores_integers else {"compress_weights": False}
        ),
    )
