"""Photographs products, several at a time."""

import logging
import multiprocessing
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from random import Random

from demo.sample_catalog.garments import Category
from demo.sample_catalog.photo import take_photo
from demo.sample_catalog.products import SampleProduct, describe_product, design_product
from jobs.images.decode_pool import end_with_parent

_log = logging.getLogger(__name__)

_ORDERS_AT_ONCE = 8
_MOST_PHOTOS = 4
_JPEG_QUALITY = (60, 95)


@dataclass(frozen=True)
class SideRange:
    """Lengths of a photo's longer side, in pixels, and the share of photos that have them."""

    share: float
    shortest: int
    longest: int


@dataclass(frozen=True)
class Part:
    """One part of the catalog. A sorted part keeps its photos in a folder for each category.

    Where ``retells``, each photo has its own wording; otherwise a product has one, as in a shop.
    """

    id_prefix: str
    side_ranges: tuple[SideRange, ...]
    is_sorted: bool
    retells: bool


LABELLED = Part("lab", (SideRange(1, 120, 176),), is_sorted=True, retells=True)
UNLABELLED = Part(
    "sku",
    (SideRange(0.8, 320, 480), SideRange(0.15, 480, 900), SideRange(0.05, 900, 1600)),
    is_sorted=False,
    retells=False,
)


@dataclass(frozen=True)
class ShootOrder:
    """What is needed to render one product, and nothing that depends on other products."""

    seed: int
    product_id: str
    category: Category
    part: Part
    folder: Path


@dataclass(frozen=True)
class PhotoRecord:
    """One file of the catalog; ``key`` is relative to the folder of its part."""

    key: str
    product_id: str
    category_name: str
    description: str
    display_name: str


def shoot_products(orders: Sequence[ShootOrder], processes: int) -> list[list[PhotoRecord]]:
    """Write the photos of each order, 1 to 4; equal orders write equal bytes. Returns their records, in order."""
    if processes == 1:
        return _log_progress(map(_shoot_product, orders), len(orders))
    # Spawned, not forked: a fork would copy the caller's locks while its threads hold them.
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=spawn, initializer=end_with_parent) as pool:
        return _log_progress(pool.map(_shoot_product, orders, chunksize=_ORDERS_AT_ONCE), len(orders))


def record_photo(product: SampleProduct, product_id: str, key: str, rng: Random) -> PhotoRecord:
    description = describe_product(product, rng)
    return PhotoRecord(key, product_id, product.category.name, description, product.display_name)


def _log_progress(records: Iterable[list[PhotoRecord]], products: int) -> list[list[PhotoRecord]]:
    step = max(1, products // 10)
    finished = []
    for group in records:
        finished.append(group)
        if len(finished) % step == 0:
            _log.info("sample catalog: %d of %d products rendered", len(finished), products)
    return finished


def _shoot_product(order: ShootOrder) -> list[PhotoRecord]:
    product = design_product(order.seed, order.product_id, order.category)
    photos = Random(f"{order.seed}/{order.product_id}/photos").randint(1, _MOST_PHOTOS)
    return [_shoot_photo(order, product, number) for number in range(1, photos + 1)]


def _shoot_photo(order: ShootOrder, product: SampleProduct, number: int) -> PhotoRecord:
    rng = Random(f"{order.seed}/{order.product_id}/{number}")
    subfolder = f"{order.category.name}/" if order.part.is_sorted else ""
    key = f"{subfolder}{order.product_id}_{number}.jpg"
    photo = take_photo(product.garment, product.fabric, _choose_side(order.part, rng), rng)
    photo.save(order.folder / key, "JPEG", quality=rng.randint(*_JPEG_QUALITY))
    telling = number if order.part.retells else 1
    return record_photo(product, order.product_id, key, Random(f"{order.seed}/{order.product_id}/text/{telling}"))


def _choose_side(part: Part, rng: Random) -> int:
    side = rng.choices(part.side_ranges, [sides.share for sides in part.side_ranges])[0]
    return rng.randint(side.shortest, side.longest)
