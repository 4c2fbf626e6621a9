"""What is measured on: photos, and two checkpoints of true size with random weights, on which speed does not depend."""

import os
from dataclasses import dataclass
from pathlib import Path

from jobs.local.sample_catalog import SampleCatalogSpec, render_sample_catalog
from jobs.settings import PROJECT_ROOT
from jobs.training.blank_checkpoints import write_blank_clip, write_blank_resnet18

REAL_PHOTOS = Path(os.environ.get("CATALOG_REAL_PHOTOS", PROJECT_ROOT.parent / "shared/data/clothing-small"))
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


def find_photos(count: int) -> Photos:
    """Real photos, spread evenly over those that are there, or rendered ones."""
    if REAL_PHOTOS.is_dir():
        paths = sorted(REAL_PHOTOS.glob("*/*/*.jpg"))
        return Photos(paths[:: max(1, len(paths) // count)][:count], "real photos of 400 x 533")
    catalog = render_sample_catalog(
        PROJECT_ROOT / ".local" / "bench-sample", SampleCatalogSpec(labelled_products=1, unlabelled_products=count // 2)
    )
    rendered = sorted(catalog.unlabelled_folder.glob("*.jpg"))[:count]
    return Photos(rendered, "rendered photos, since CATALOG_REAL_PHOTOS is absent")


def write_checkpoints(folder: Path) -> Checkpoints:
    """Write both below a folder."""
    checkpoints = Checkpoints(folder / "resnet-18", folder / "clip-vit-b-32")
    write_blank_resnet18(checkpoints.classifier, SIDE, CATEGORIES)
    write_blank_clip(
        checkpoints.encoder, SIDE, patch_side=32, width=768, dimensions=512, layers=12, texts=["red striped dress"]
    )
    return checkpoints
