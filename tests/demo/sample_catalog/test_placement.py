from random import Random

import numpy as np
import pytest

from demo.sample_catalog.garments import CATEGORIES, Category
from demo.sample_catalog.marks import collect_points
from demo.sample_catalog.placement import Placement, Pose


@pytest.mark.parametrize("degrees", [-15, 0, 15])
@pytest.mark.parametrize("category", CATEGORIES, ids=lambda category: category.name)
def test_a_turned_garment_fills_its_share_of_the_frame(category: Category, degrees: float) -> None:
    garment, frame = category.draw(Random(1)), np.array((300, 400))
    placement = Placement.fit(garment, (300, 400), Pose(degrees, is_mirrored=True, share=0.8, position=(0, 1)))
    pixels = placement.locate(collect_points(garment.marks))
    assert (np.ptp(pixels, axis=0) / frame).max() == pytest.approx(0.8)
    assert pixels[:, 0].min() == pytest.approx(0, abs=1e-6)
    assert pixels[:, 1].max() == pytest.approx(400)
