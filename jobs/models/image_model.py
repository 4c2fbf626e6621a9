"""The interface of a served model, and the record of the build that serves it."""

import logging
from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from pydantic import TypeAdapter, ValidationError

from jobs.database.model_versions import ModelKind
from jobs.errors import PermanentError
from jobs.images.geometry import Geometry

log = logging.getLogger(__name__)

EngineName = Literal["torch", "openvino"]
Precision = Literal["fp32", "bf16", "fp16", "int8"]
BUILD_FILE = "build.json"
GRAPH_FILE = "graph.xml"
"""The graph of OpenVINO; its weights lie beside it, in ``graph.bin``."""


@dataclass(frozen=True)
class ModelBuild:
    """What a process that serves a model reads instead of the checkpoint's own configuration.

    ``rest_precision`` is that of the layers of an int8 model that are not quantized, else ``precision`` itself. Where
    whole ``float_blocks`` of them are left so on purpose, ``int8_share`` is what remains of the multiply-adds of all
    layers with weights, between 0 and 1.
    ``categories`` are those of a classifier in the order of its outputs, whose logits are divided by ``temperature``.
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
        """The engine and its precision, for people."""
        share = f" for {self.int8_share:.0%}" if self.int8_share is not None else ""
        rest = f" and {self.rest_precision}" if self.rest_precision != self.precision else ""
        return f"{self.engine} {self.precision}{share}{rest}"

    def with_float(self, precision: Precision) -> "ModelBuild":
        """The same, with its float layers in another precision."""
        return replace(self, precision="int8" if self.precision == "int8" else precision, rest_precision=precision)


def choose_float(precision: Precision, native: Collection[Precision]) -> Precision:
    """The precision of floats in which a processor serves what was built in ``precision``.

    Where it does not compute in that, it is float32, with which every other was compared before it was taken: the
    answers stay within the bounds of the fidelity gate. Emulated, 16 bits take two to five times as long as float32.
    """
    if precision == "fp32" or precision in native:
        return precision
    _log_replaced(precision)
    return "fp32"


@cache
def _log_replaced(precision: Precision) -> None:
    """Once in a process."""
    log.warning("this processor does not compute in %s, which would be slow: float32 takes its place", precision)


def write_build(folder: Path, build: ModelBuild) -> None:
    """Store the record with a checkpoint."""
    (folder / BUILD_FILE).write_bytes(TypeAdapter(ModelBuild).dump_json(build, indent=1))


def read_build(folder: Path) -> ModelBuild | None:
    """The record that a folder carries; None where no precision was chosen, and the machine's own is taken.

    Raises:
        PermanentError: the file has another form.
    """
    file = folder / BUILD_FILE
    try:
        return TypeAdapter(ModelBuild).validate_json(file.read_bytes()) if file.is_file() else None
    except ValidationError as error:
        raise PermanentError(
            f"{file} has another form ({error.errors()[0]['msg']}): run `python -m jobs optimize` again"
        ) from None


class ImageModel(Protocol):
    """The image side of a model, loaded; safe to call from ``passes`` threads at a time."""

    @property
    def engine(self) -> EngineName:
        """Which engine computes it."""

    @property
    def description(self) -> str:
        """Engine and precision, for people."""

    @property
    def geometry(self) -> Geometry:
        """How photos are resized for it."""

    @property
    def categories(self) -> tuple[str, ...]:
        """The names of a classifier's outputs, in order; none of an encoder."""

    @property
    def batch_size(self) -> int:
        """Photos that are best asked for at once."""

    @property
    def passes(self) -> int:
        """Batches that are best asked for side by side."""

    def predict(self, pixels: np.ndarray) -> np.ndarray:
        """Turn uint8 pixels [n, side, side, 3] into float32 [n, outputs]: calibrated probabilities or unit vectors."""
