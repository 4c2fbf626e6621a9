"""What is measured on: photos, and two checkpoints of true size with random weights, on which speed does not depend."""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from demo.blank_checkpoints import write_blank_clip, write_blank_resnet18
from demo.sample_catalog import SampleCatalogSpec, render_sample_catalog
from jobs.database.model_versions import ModelKind
from jobs.images.geometry import Geometry
from jobs.models.device import choose_device
from jobs.models.image_model import EngineName, Precision, write_build
from jobs.models.openvino_model import list_float_precisions
from jobs.models.torch_model import describe_checkpoint
from jobs.retrain.optimize.convert import convert_checkpoint, save_graph
from jobs.retrain.optimize.quantize import quantize
from jobs.settings import PROJECT_ROOT

REAL_PHOTOS = Path(os.environ.get("CATALOG_REAL_PHOTOS", PROJECT_ROOT.parent / "shared/data/clothing-small"))
CALIBRATION_PHOTOS = 300
CATEGORIES = [f"category-{number}" for number in range(10)]
SIDE = 224


@dataclass(frozen=True)
class Photos:
    """Files, and in words what they show."""

    paths: list[Path]
    kind: str


@dataclass(frozen=True)
class Checkpoints:
    """ResNet-18, and a CLIP of ViT-B/32 size."""

    classifier: Path
    encoder: Path


@dataclass(frozen=True)
class Way:
    """An engine and a precision."""

    engine: EngineName
    precision: Precision

    def __str__(self) -> str:
        return f"{self.engine} {self.precision}"


def find_photos(count: int) -> Photos:
    """Real photos, spread evenly over those that are there, or rendered ones."""
    if REAL_PHOTOS.is_dir():
        paths = sorted(REAL_PHOTOS.glob("*/*/*.jpg"))
        return Photos(paths[:: max(1, len(paths) // count)][:count], "real photos of 400 x 533")
    catalog = render_sample_catalog(
        PROJECT_ROOT / ".local" / "bench-sample", SampleCatalogSpec(labeled_products=1, unlabeled_products=count // 2)
    )
    rendered = sorted(catalog.unlabeled_folder.glob("*.jpg"))[:count]
    return Photos(rendered, "rendered photos, since CATALOG_REAL_PHOTOS is absent")


def enlarge_photos(photos: Sequence[Path], folder: Path) -> list[Path]:
    """The same photos as a camera gives them: 1200 x 1600, some 350 kB each."""
    folder.mkdir()
    enlarged = []
    for photo in photos:
        enlarged.append(folder / photo.name)
        large = Image.open(photo).convert("RGB").resize((1200, 1600), Image.Resampling.BICUBIC)
        large.save(enlarged[-1], "JPEG", quality=90)
    return enlarged


def link_photos(photos: Sequence[Path], folder: Path) -> Path:
    """A folder of these photos."""
    folder.mkdir()
    for number, photo in enumerate(photos):
        (folder / f"{number:05d}.jpg").symlink_to(photo.absolute())
    return folder


def multiply_photos(photos: Sequence[Path], count: int, folder: Path) -> list[Path]:
    """These photos over and over, each with bytes of its own: what stands behind the end of a JPEG is not looked at."""
    folder.mkdir()
    multiplied = []
    for number in range(count):
        multiplied.append(folder / f"{number:06d}.jpg")
        multiplied[-1].write_bytes(photos[number % len(photos)].read_bytes() + number.to_bytes(4, "big"))
    return multiplied


def load_calibration(photos: Sequence[Path]) -> np.ndarray:
    """Pixels for quantising, as the job resizes them: uint8 [n, side, side, 3]."""
    geometry = Geometry(SIDE, SIDE, keep_aspect=True, interpolation="bicubic")
    return np.stack([geometry.resize(Image.open(photo).convert("RGB")) for photo in photos[:CALIBRATION_PHOTOS]])


def list_ways() -> list[Way]:
    """The engines and precisions that this processor computes in, the fastest last."""
    native = choose_device("auto", "auto").precision
    graphs = [Way("openvino", precision) for precision in ("int8", *list_float_precisions())]
    return [Way("torch", native), *reversed(graphs)]


def build_artifacts(checkpoints: Checkpoints, way: Way, calibration: np.ndarray, folder: Path) -> Checkpoints:
    """Write a build of both checkpoints. Skip the fidelity gate, because the weights are random."""
    folder.mkdir()
    artifacts = Checkpoints(folder / "resnet-18", folder / "clip-vit-b-32")
    kinds: tuple[ModelKind, ModelKind] = ("classifier", "encoder")
    pairs = ((checkpoints.classifier, artifacts.classifier), (checkpoints.encoder, artifacts.encoder))
    for kind, (checkpoint, artifact) in zip(kinds, pairs, strict=True):
        shutil.copytree(checkpoint, artifact)
        rest: Precision = "fp32" if way.precision == "int8" else way.precision
        described = replace(
            describe_checkpoint(checkpoint, kind), engine=way.engine, precision=way.precision, rest_precision=rest
        )
        write_build(artifact, described)
        if way.engine == "openvino":
            graph = convert_checkpoint(checkpoint, kind)
            save_graph(quantize(graph, calibration) if way.precision == "int8" else graph, artifact)
    return artifacts


def write_checkpoints(folder: Path) -> Checkpoints:
    """Write both below a folder."""
    checkpoints = Checkpoints(folder / "resnet-18", folder / "clip-vit-b-32")
    write_blank_resnet18(checkpoints.classifier, SIDE, CATEGORIES)
    write_blank_clip(
        checkpoints.encoder, SIDE, patch_side=32, width=768, dimensions=512, layers=12, texts=["red striped dress"]
    )
    return checkpoints
