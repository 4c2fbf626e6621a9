from random import Random

import numpy as np
import pytest

from demo.sample_catalog.backdrop import choose_backdrop_colour, paint_backdrop
from demo.sample_catalog.fabric import Pattern, choose_fabric, measure_contrast


def test_every_fabric_stands_out_from_its_backdrop() -> None:
    for seed in range(300):
        rng = Random(seed)
        fabric = choose_fabric(rng)
        backdrop = choose_backdrop_colour(fabric, rng)
        assert measure_contrast(fabric.colour, backdrop) > 70
        if fabric.pattern is not Pattern.PLAIN:
            assert measure_contrast(fabric.second, backdrop) > 70


@pytest.mark.parametrize("seed", range(12))
def test_every_texture_fills_the_frame_with_about_its_colour(seed: int) -> None:
    backdrop = paint_backdrop((200, 150, 100), (300, 200), Random(seed))
    assert backdrop.shape == (3, 200, 300)
    np.testing.assert_allclose(backdrop.mean(axis=(1, 2)), (200, 150, 100), rtol=0.12)
