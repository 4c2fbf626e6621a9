"""Garments are told apart by their shape alone."""

from random import Random

import numpy as np
import numpy.typing as npt
import pytest

from demo.sample_catalog.canvas import paint_garment
from demo.sample_catalog.fabric import COLOURS, Fabric, Pattern
from demo.sample_catalog.garments import CATEGORIES, Category
from demo.sample_catalog.placement import Placement, Pose

GREY_CLOTH = Fabric("grey", "white", COLOURS["grey"], COLOURS["white"], Pattern.PLAIN, 0.1, 0, 0.5)
FRAME = (48, 48)


def draw_shape(category: Category, number: int) -> npt.NDArray[np.float32]:
    """A garment in plain grey, laid straight: nothing but its shape is left."""
    garment = category.draw(Random(f"{category.name}/{number}"))
    placement = Placement.fit(garment, FRAME, Pose(0, is_mirrored=False, share=0.9, position=(0.5, 0.5)))
    cutout = paint_garment(garment, GREY_CLOTH, placement, FRAME)
    shape: npt.NDArray[np.float32] = cutout.colour.mean(axis=0) * cutout.coverage
    return shape.ravel()


def test_there_are_at_least_ten_categories_with_distinct_names() -> None:
    assert len({category.name for category in CATEGORIES}) == len(CATEGORIES) >= 10


def test_the_nearest_shape_is_of_the_same_category() -> None:
    known = [(category.name, draw_shape(category, number)) for category in CATEGORIES for number in range(25)]
    shapes = np.stack([shape for _, shape in known])
    asked = [(category.name, draw_shape(category, number)) for category in CATEGORIES for number in range(100, 106)]
    found = [known[int(np.abs(shapes - shape).sum(axis=1).argmin())][0] for _, shape in asked]
    right = sum(name == answer for (name, _), answer in zip(asked, found, strict=True))
    assert right / len(asked) > 0.9


@pytest.mark.parametrize("category", CATEGORIES, ids=lambda category: category.name)
def test_proportions_vary_within_a_category(category: Category) -> None:
    assert np.abs(draw_shape(category, 1) - draw_shape(category, 2)).max() > 50
