from dataclasses import replace
from random import Random

import numpy as np

from demo.sample_catalog.canvas import paint_garment
from demo.sample_catalog.fabric import COLOURS, Fabric, Pattern
from demo.sample_catalog.garments import CATEGORIES
from demo.sample_catalog.placement import Placement, Pose

RED_AND_WHITE = Fabric("red", "white", COLOURS["red"], COLOURS["white"], Pattern.STRIPED, 0.1, 0, 0.5)
FRAME = (120, 120)


def test_the_pattern_is_clipped_to_the_garment() -> None:
    garment = CATEGORIES[-1].draw(Random(3))
    placement = Placement.fit(garment, FRAME, Pose(10, is_mirrored=False, share=0.8, position=(0.5, 0.5)))
    striped = paint_garment(garment, RED_AND_WHITE, placement, FRAME)
    plain = paint_garment(garment, replace(RED_AND_WHITE, pattern=Pattern.PLAIN), placement, FRAME)
    differs = np.abs(striped.colour - plain.colour).max(axis=0) > 1
    assert differs.any()
    assert not differs[striped.coverage == 0].any()
    np.testing.assert_array_equal(striped.coverage, plain.coverage)
