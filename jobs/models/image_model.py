"""Define the interface of loaded image models, and the build record in a model folder."""

import logging
from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Protocol

import numpy as np
from pydantic import TypeAdapter, ValidationError

from jobs.database.model_builds import DeviceClass, EngineName, Precision
from jobs.database.model_versions import ModelKind
from jobs.errors import ConfigurationError
from jobs.images.geometry import Geometry

log = logging.getLogger(__name__)

BUILD_FILE = "build.json"
GRAPH_FILE = "graph.xml"
"""The OpenVINO graph. Its weights are in ``graph.bin`` in the same folder."""
PROGRAM_FILE = "program.pt2"
"""The program exported by torch, with its weights."""
PACKAGE_FILE = "package.pt2"
"""The same program compiled for one type of GPU. Optional."""


@dataclass(frozen=True)
class ModelBuild:
    """How a model is served. Serving reads this instead of the checkpoint's own configuration.

    ``rest_precision`` is the precision of those layers of an int8 model that are not quantized; in other models it
    equals ``precision``. ``float_blocks`` names the blocks that were kept in float. ``int8_share``, 0 to 1, is the
    share of multiply-adds that run in int8, among all layers with weights. ``categories`` are in the order of a
    classifier's outputs. Its logits are divided by ``temperature``.
    """

    kind: ModelKind
    engine: EngineName
    precision: Precision
    rest_precision: Precision
    geometry: Geometry
    categories: tuple[str, ...]
    temperature: float
    int8_share: float | None = None
    float_blocks: tuple[str, ...] = ()

    def describe(self) -> str:
        """Return engine and precision as text, such as "openvino int8 for 80% and bf16"."""
        share = f" for {self.int8_share:.0%}" if self.int8_share is not None else ""
        rest = f" and {self.rest_precision}" if self.rest_precision != self.precision else ""
        return f"{self.engine} {self.precision}{share}{rest}"

    def with_float(self, precision: Precision) -> "ModelBuild":
        """Return a copy whose float layers use another precision."""
        return replace(self, precision="int8" if self.precision == "int8" else precision, rest_precision=precision)


def choose_float(precision: Precision, native: Collection[Precision]) -> Precision:
    """Return ``precision`` if the processor supports it natively, else float32.

    Emulated 16-bit floats take two to five times as long as float32. The fidelity gate has compared every build with
    float32, so predictions in float32 are within its bounds.
    """
    if precision == "fp32" or precision in native:
        return precision
    _log_replaced(precision)
    return "fp32"


@cache
def _log_replaced(precision: Precision) -> None:
    """Log once per process."""
    log.warning("this processor does not support %s natively: using float32, which is faster than emulation", precision)


def write_build(folder: Path, build: ModelBuild) -> None:
    """Store the build record in a model folder."""
    (folder / BUILD_FILE).write_bytes(TypeAdapter(ModelBuild).dump_json(build, indent=1))


def read_build(folder: Path) -> ModelBuild | None:
    """Return the build record of a model folder. If it is None, each machine chooses its own precision.

    Raises:
        ConfigurationError: the file is not a valid build record.
    """
    file = folder / BUILD_FILE
    try:
        return TypeAdapter(ModelBuild).validate_json(file.read_bytes()) if file.is_file() else None
    except ValidationError as error:
        raise ConfigurationError(
            f"{file} is not a valid build record ({error.errors()[0]['msg']}). Run `catalog optimize` again"
        ) from None


def finish(build: ModelBuild, outputs: np.ndarray) -> np.ndarray:
    """Turn the outputs of a build into probabilities or unit vectors.

    Vectors are normalized here, because a build returns unit length only up to the error of its precision.
    """
    if build.kind == "encoder":
        unit: np.ndarray = outputs / np.linalg.norm(outputs, axis=1, keepdims=True)
        return unit
    logits = outputs / np.float32(build.temperature)
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities: np.ndarray = exponentials / exponentials.sum(axis=1, keepdims=True)
    return probabilities


class ImageModel(Protocol):
    """A loaded model that takes images. Safe to call from ``passes`` threads at a time."""

    @property
    def engine(self) -> EngineName:
        """The engine that runs the model."""

    @property
    def description(self) -> str:
        """Engine and precision as text."""

    @property
    def device_class(self) -> DeviceClass:
        """The class of the device that runs the model."""

    @property
    def geometry(self) -> Geometry:
        """How images are resized for this model."""

    @property
    def categories(self) -> tuple[str, ...]:
        """The categories in the order of a classifier's outputs; empty for an encoder."""

    @property
    def batch_size(self) -> int:
        """The recommended number of images per call."""

    @property
    def passes(self) -> int:
        """The recommended number of concurrent calls."""

    def predict(self, pixels: np.ndarray) -> np.ndarray:
        """Turn uint8 pixels [n, side, side, 3] into float32 [n, outputs]: calibrated probabilities or unit vectors."""
