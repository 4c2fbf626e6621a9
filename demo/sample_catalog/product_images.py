"""Render the images of products in several processes."""

import logging
import multiprocessing
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from random import Random

from demo.sample_catalog.products import Category, SampleProduct, describe_product, design_product
from demo.sample_catalog.scene import render_image
from jobs.images.decode_pool import end_with_parent

_log = logging.getLogger(__name__)

_TASKS_PER_CHUNK = 8
_MAX_IMAGES = 4
_JPEG_QUALITY = (60, 95)


@dataclass(frozen=True)
class SideRange:
    """A range of an image's longer side, in pixels, and the share of images in it."""

    share: float
    shortest: int
    longest: int


@dataclass(frozen=True)
class CatalogPart:
    """A part of the catalog. If ``is_sorted``, each category has a folder.

    With ``varies_text``, each image has its own caption; otherwise all images of a product share one, as in a shop.
    """

    id_prefix: str
    side_ranges: tuple[SideRange, ...]
    is_sorted: bool
    varies_text: bool


LABELED = CatalogPart("lab", (SideRange(1, 120, 176),), is_sorted=True, varies_text=True)
UNLABELED = CatalogPart(
    "sku",
    (SideRange(0.8, 320, 480), SideRange(0.15, 480, 900), SideRange(0.05, 900, 1600)),
    is_sorted=False,
    varies_text=False,
)


@dataclass(frozen=True)
class RenderTask:
    """Everything that is needed to render one product, independently of the others."""

    seed: int
    product_id: str
    category: Category
    part: CatalogPart
    folder: Path


@dataclass(frozen=True)
class ImageRecord:
    """A file of the catalog; ``key`` is relative to the folder of its part."""

    key: str
    product_id: str
    category_name: str
    description: str
    display_name: str


def render_products(tasks: Sequence[RenderTask], processes: int) -> list[list[ImageRecord]]:
    """Write 1 to 4 images for each task. Return their records in task order. Equal tasks write equal bytes."""
    if processes == 1:
        return _log_progress(map(_render_product, tasks), len(tasks))
    # Spawn, because a fork would copy locks that the caller's threads hold.
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=spawn, initializer=end_with_parent) as pool:
        return _log_progress(pool.map(_render_product, tasks, chunksize=_TASKS_PER_CHUNK), len(tasks))


def make_record(product: SampleProduct, product_id: str, key: str, rng: Random) -> ImageRecord:
    description = describe_product(product, rng)
    return ImageRecord(key, product_id, product.category.name, description, product.display_name)


def _log_progress(records: Iterable[list[ImageRecord]], products: int) -> list[list[ImageRecord]]:
    step = max(1, products // 10)
    finished = []
    for group in records:
        finished.append(group)
        if len(finished) % step == 0:
            _log.info("sample catalog: %d of %d products rendered", len(finished), products)
    return finished


def _render_product(task: RenderTask) -> list[ImageRecord]:
    product = design_product(task.seed, task.product_id, task.category)
    # Seeds contain these words, so changing "photos" or "text" would change every rendered catalog.
    images = Random(f"{task.seed}/{task.product_id}/photos").randint(1, _MAX_IMAGES)
    return [_render_product_image(task, product, number) for number in range(1, images + 1)]


def _render_product_image(task: RenderTask, product: SampleProduct, number: int) -> ImageRecord:
    rng = Random(f"{task.seed}/{task.product_id}/{number}")
    subfolder = f"{task.category.name}/" if task.part.is_sorted else ""
    key = f"{subfolder}{task.product_id}_{number}.jpg"
    image = render_image(product.garment, product.fabric, _choose_side(task.part, rng), rng)
    image.save(task.folder / key, "JPEG", quality=rng.randint(*_JPEG_QUALITY))
    caption = number if task.part.varies_text else 1
    return make_record(product, task.product_id, key, Random(f"{task.seed}/{task.product_id}/text/{caption}"))


def _choose_side(part: CatalogPart, rng: Random) -> int:
    side = rng.choices(part.side_ranges, [sides.share for sides in part.side_ranges])[0]
    return rng.randint(side.shortest, side.longest)
