from dataclasses import replace
from random import Random

import numpy as np
import pytest

from demo.sample_catalog.canvas import Placement, Pose, paint_garment
from demo.sample_catalog.fabric import COLORS, Fabric, Pattern
from demo.sample_catalog.marks import collect_points
from demo.sample_catalog.products import CATEGORIES, Category

RED_AND_WHITE = Fabric("red", "white", COLORS["red"], COLORS["white"], Pattern.STRIPED, 0.1, 0, 0.5)
FRAME = (120, 120)


def test_pattern_is_clipped_to_the_garment() -> None:
    garment = CATEGORIES[-1].draw(Random(3))
    placement = Placement.fit(garment, FRAME, Pose(10, is_mirrored=False, share=0.8, position=(0.5, 0.5)))
    striped = paint_garment(garment, RED_AND_WHITE, placement, FRAME)
    plain = paint_garment(garment, replace(RED_AND_WHITE, pattern=Pattern.PLAIN), placement, FRAME)
    differs = np.abs(striped.color - plain.color).max(axis=0) > 1
    assert differs.any()
    assert not differs[striped.coverage == 0].any()
    np.testing.assert_array_equal(striped.coverage, plain.coverage)


@pytest.mark.parametrize("degrees", [-15, 0, 15])
@pytest.mark.parametrize("category", CATEGORIES, ids=lambda category: category.name)
def test_rotated_garment_fills_its_share_of_the_frame(category: Category, degrees: float) -> None:
    garment, frame = category.draw(Random(1)), np.array((300, 400))
    placement = Placement.fit(garment, (300, 400), Pose(degrees, is_mirrored=True, share=0.8, position=(0, 1)))
    pixels = placement.locate(collect_points(garment.marks))
    assert (np.ptp(pixels, axis=0) / frame).max() == pytest.approx(0.8)
    assert pixels[:, 0].min() == pytest.approx(0, abs=1e-6)
    assert pixels[:, 1].max() == pytest.approx(400)
