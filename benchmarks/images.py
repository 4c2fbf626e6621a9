"""Provide images for benchmarks: real ones if available, rendered ones otherwise."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from demo.sample_catalog import SampleCatalogSpec, render_sample_catalog
from fixtures.real_data import REAL_IMAGES
from jobs.settings import PROJECT_ROOT

SIZE = (400, 533)
LARGE_SIZE = (1200, 1600)
GRAIN_LEVELS = 4.0


@dataclass(frozen=True)
class ImageFiles:
    """Files and their description."""

    paths: list[Path]
    kind: str

    def __str__(self) -> str:
        return f"{len(self.paths):,} {self.kind}"


def find_images(count: int) -> ImageFiles:
    """Return an evenly spaced selection of the real images, or rendered images if there are no real ones."""
    if REAL_IMAGES.is_dir():
        paths = sorted(REAL_IMAGES.glob("*/*/*.jpg"))
        return ImageFiles(paths[:: max(1, len(paths) // count)][:count], "real images of 400 x 533")
    spec = SampleCatalogSpec(labeled_products=1, unlabeled_products=count // 2)
    catalog = render_sample_catalog(PROJECT_ROOT / ".local" / "bench-sample", spec)
    return ImageFiles(sorted(catalog.unlabeled_folder.glob("*.jpg"))[:count], "rendered images")


def enlarge_images(images: Sequence[Path], folder: Path) -> list[Path]:
    """Write the images in the size of camera images: 1200 x 1600 pixels, about 350 kB each."""
    folder.mkdir()
    enlarged = []
    for image in images:
        enlarged.append(folder / image.name)
        large = Image.open(image).convert("RGB").resize(LARGE_SIZE, Image.Resampling.BICUBIC)
        large.save(enlarged[-1], "JPEG", quality=90)
    return enlarged


def link_images(images: Sequence[Path], folder: Path) -> Path:
    """Create a folder of links to the images."""
    folder.mkdir()
    for number, image in enumerate(images):
        (folder / f"{number:05d}.jpg").symlink_to(image.absolute())
    return folder


def multiply_images(images: Sequence[Path], count: int, folder: Path) -> list[Path]:
    """Repeat the images, each with different bytes at the end, which decoders ignore in a JPEG."""
    folder.mkdir()
    multiplied = []
    for number in range(count):
        multiplied.append(folder / f"{number:06d}.jpg")
        multiplied[-1].write_bytes(images[number % len(images)].read_bytes() + number.to_bytes(4, "big"))
    return multiplied


def make_jpegs(count: int) -> list[bytes]:
    """Generate JPEGs of soft colors with grain, all of them different. Every call returns the same JPEGs."""
    return [_make_jpeg(np.random.default_rng(number)) for number in range(count)]


def _make_jpeg(random: np.random.Generator) -> bytes:
    soft = Image.fromarray(random.integers(0, 256, (16, 12, 3), dtype=np.uint8)).resize(SIZE, Image.Resampling.BICUBIC)
    grain = random.normal(0, GRAIN_LEVELS, (SIZE[1], SIZE[0], 1))
    content = io.BytesIO()
    Image.fromarray((np.asarray(soft) + grain).clip(0, 255).astype(np.uint8)).save(content, "JPEG", quality=85)
    return content.getvalue()
