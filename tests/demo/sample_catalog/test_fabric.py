from dataclasses import replace
from itertools import combinations
from random import Random

import numpy as np
import pytest

from demo.sample_catalog.fabric import COLORS, Fabric, Pattern, choose_fabric, compute_pattern_weights, measure_contrast

RED_AND_WHITE = Fabric("red", "white", COLORS["red"], COLORS["white"], Pattern.STRIPED, 0.1, 0, 0.5)


@pytest.mark.parametrize("pattern", [Pattern.STRIPED, Pattern.DOTTED, Pattern.CHECKED])
@pytest.mark.parametrize("density", [0, 1])
def test_first_color_covers_most_of_a_patterned_cloth(pattern: Pattern, density: float) -> None:
    position = np.linspace(0, 10, 400, dtype=np.float32)
    fabric = replace(RED_AND_WHITE, pattern=pattern, density=density)
    weights = compute_pattern_weights(fabric, position[None], position[:, None], period_pixels=40)
    assert weights.min() == 0
    assert weights.max() == 1
    assert 0.15 < weights.mean() < 0.5


def test_colors_with_different_names_differ() -> None:
    jittered = [choose_fabric(Random(seed)) for seed in range(300)]
    for one, other in combinations(jittered, 2):
        if one.color_name != other.color_name:
            assert measure_contrast(one.color, other.color) > 30
