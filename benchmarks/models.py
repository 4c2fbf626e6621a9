"""Create models for benchmarks: a ResNet-18 and a CLIP. Their weights are random, which does not affect speed."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from demo.blank_checkpoints import write_blank_clip, write_blank_resnet18
from jobs.database.model_builds import EngineName, Precision
from jobs.database.model_versions import ModelKind
from jobs.images.geometry import Geometry
from jobs.models.device import choose_device
from jobs.models.image_model import write_build
from jobs.models.openvino_model import list_float_precisions
from jobs.models.torch_model import describe_checkpoint
from jobs.retrain.optimize.convert import convert_checkpoint, save_graph
from jobs.retrain.optimize.export import export_checkpoint
from jobs.retrain.optimize.quantize import quantize

CALIBRATION_IMAGES = 300
CATEGORIES = [f"category-{number}" for number in range(10)]
SIDE = 224


@dataclass(frozen=True)
class ModelFolders:
    """The folders of a classifier and an encoder."""

    classifier: Path
    encoder: Path


@dataclass(frozen=True)
class ModelFormat:
    """An engine and a precision."""

    engine: EngineName
    precision: Precision

    def __str__(self) -> str:
        return f"{self.engine} {self.precision}"


INT8 = ModelFormat("openvino", "int8")


def write_checkpoints(folder: Path) -> ModelFolders:
    """Write a ResNet-18 and a CLIP of ViT-B/32 size."""
    checkpoints = ModelFolders(folder / "resnet-18", folder / "clip-vit-b-32")
    write_blank_resnet18(checkpoints.classifier, SIDE, CATEGORIES)
    write_blank_clip(
        checkpoints.encoder, SIDE, patch_side=32, width=768, dimensions=512, layers=12, texts=["red striped dress"]
    )
    return checkpoints


def list_formats() -> list[ModelFormat]:
    """Return the formats that this processor supports, from slowest to fastest."""
    native = choose_device("auto", "auto").precision
    floats = [ModelFormat("openvino", precision) for precision in reversed(list_float_precisions())]
    return [ModelFormat("torch", native), *floats, INT8]


def build_artifacts(
    checkpoints: ModelFolders, chosen: ModelFormat, images: Sequence[Path], folder: Path
) -> ModelFolders:
    """Write production artifacts of both checkpoints. Skip the fidelity check, because the weights are random."""
    folder.mkdir()
    artifacts = ModelFolders(folder / "resnet-18", folder / "clip-vit-b-32")
    kinds: tuple[ModelKind, ModelKind] = ("classifier", "encoder")
    pairs = ((checkpoints.classifier, artifacts.classifier), (checkpoints.encoder, artifacts.encoder))
    for kind, (checkpoint, artifact) in zip(kinds, pairs, strict=True):
        # A folder that is a checkpoint and its build, so that both can be registered from it.
        shutil.copytree(checkpoint, artifact)
        rest: Precision = "fp32" if chosen == INT8 else chosen.precision
        described = replace(
            describe_checkpoint(checkpoint, kind), engine=chosen.engine, precision=chosen.precision, rest_precision=rest
        )
        write_build(artifact, described)
        if chosen.engine == "torch":
            export_checkpoint(checkpoint, kind, choose_device("auto", chosen.precision), artifact)
        else:
            graph = convert_checkpoint(checkpoint, kind)
            save_graph(quantize(graph, _load_calibration(images)) if chosen == INT8 else graph, artifact)
    return artifacts


def _load_calibration(images: Sequence[Path]) -> np.ndarray:
    """Return pixels for quantization, resized as in the job: uint8 [n, side, side, 3]."""
    geometry = Geometry(SIDE, SIDE, keep_aspect=True, interpolation="bicubic")
    return np.stack([geometry.resize(Image.open(image).convert("RGB")) for image in images[:CALIBRATION_IMAGES]])
