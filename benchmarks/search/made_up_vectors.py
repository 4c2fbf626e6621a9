"""Vectors with the structure of a shop: categories of styles, styles of products, products of a few photos.

White noise in 512 dimensions has no neighbours worth the name, and a graph index fails on it as it does on nothing
real. Here each level adds a deviation to the one above it, and the variance of the dimensions falls as one over their
rank, as the spectrum of the features of a trained encoder does; a random rotation then mixes the dimensions.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

DIMENSIONS = 512
PHOTOS_PER_PRODUCT = 3
PRODUCTS_PER_STYLE = 160
LEVELS = {"style": 0.7, "product": 0.5, "photo": 0.25}
"""Length of each deviation, as a multiple of that of a category's centre from the origin."""
RARE_CATEGORIES: Mapping[str, float] = {"a tenth": 0.1, "a hundredth": 0.01, "a thousandth": 0.001}
COMMON_CATEGORIES = 30
"""They share what the others leave."""
CHUNK = 50_000


@dataclass(frozen=True)
class MadeUpCatalog:
    """Unit vectors of photos, float16 [n, `DIMENSIONS`], those of a product one after the other.

    ``categories`` holds the number of each product's category in ``names``.
    """

    vectors: np.ndarray
    categories: np.ndarray
    names: tuple[str, ...]

    @property
    def products(self) -> int:
        """How many products there are."""
        return len(self.categories)


def make_catalog(images: int, seed: int = 0) -> MadeUpCatalog:
    """Photos of ``images // PHOTOS_PER_PRODUCT`` products; the same arguments give the same catalog."""
    random = np.random.default_rng(seed)
    names = (*RARE_CATEGORIES, *(f"category {number:02d}" for number in range(COMMON_CATEGORIES)))
    rest = (1 - sum(RARE_CATEGORIES.values())) / COMMON_CATEGORIES
    shares = np.array([*RARE_CATEGORIES.values(), *[rest] * COMMON_CATEGORIES])
    products = images // PHOTOS_PER_PRODUCT
    categories = random.choice(len(names), size=products, p=shares)
    # A style belongs to one category; a rare category has few.
    styles_by_category = np.maximum(1, np.round(shares * products / PRODUCTS_PER_STYLE)).astype(int)
    first_style = np.concatenate([[0], np.cumsum(styles_by_category)[:-1]])
    styles = first_style[categories] + random.integers(0, styles_by_category[categories])

    spread = _make_spread(random)
    centres = _draw(random, len(names), 1.0) @ spread
    style_categories = np.repeat(np.arange(len(names)), styles_by_category)
    style_centres = centres[style_categories] + _draw(random, len(style_categories), LEVELS["style"]) @ spread
    vectors = np.empty((products * PHOTOS_PER_PRODUCT, DIMENSIONS), dtype=np.float16)
    for start in range(0, products, CHUNK):
        chunk = styles[start : start + CHUNK]
        means = style_centres[chunk] + _draw(random, len(chunk), LEVELS["product"]) @ spread
        photos = np.repeat(means, PHOTOS_PER_PRODUCT, axis=0)
        photos += _draw(random, len(photos), LEVELS["photo"]) @ spread
        photos /= np.linalg.norm(photos, axis=1, keepdims=True)
        vectors[start * PHOTOS_PER_PRODUCT :][: len(photos)] = photos
    return MadeUpCatalog(vectors, categories, names)


def _make_spread(random: np.random.Generator) -> np.ndarray:
    """A rotation whose directions have variances that fall as one over their rank and add up to 1."""
    variances = 1 / np.arange(1, DIMENSIONS + 1)
    rotation, _ = np.linalg.qr(random.standard_normal((DIMENSIONS, DIMENSIONS)))
    spread: np.ndarray = (np.sqrt(variances / variances.sum())[:, None] * rotation).astype(np.float32)
    return spread


def _draw(random: np.random.Generator, count: int, length: float) -> np.ndarray:
    return length * random.standard_normal((count, DIMENSIONS), dtype=np.float32)
