from random import Random

import numpy as np
import pytest

from demo.sample_catalog.fabric import COLORS, Fabric, Pattern, choose_fabric, measure_contrast
from demo.sample_catalog.products import CATEGORIES, Category
from demo.sample_catalog.scene import choose_backdrop_color, paint_backdrop, render_cutout, render_image

BLUE_CLOTH = Fabric("blue", "white", COLORS["blue"], COLORS["white"], Pattern.PLAIN, 0.1, 0, 0.5)


@pytest.mark.parametrize("category", CATEGORIES, ids=lambda category: category.name)
def test_image_shows_the_color_of_its_garment(category: Category) -> None:
    image = render_image(category.draw(Random(1)), BLUE_CLOTH, 200, Random(2))
    red, _, blue = (np.asarray(band, np.int16) for band in image.split())
    assert ((blue - red) > 80).mean() > 0.1


@pytest.mark.parametrize("longest_side", [300, 1600])
def test_longest_side_is_as_requested(longest_side: int) -> None:
    assert max(render_image(CATEGORIES[0].draw(Random(1)), BLUE_CLOTH, longest_side, Random(2)).size) == longest_side


def test_images_of_one_garment_differ() -> None:
    garment = CATEGORIES[0].draw(Random(1))
    assert render_image(garment, BLUE_CLOTH, 200, Random(2)) != render_image(garment, BLUE_CLOTH, 200, Random(3))


def test_cutout_is_transparent_black_around_the_garment() -> None:
    pixels = np.asarray(render_cutout(CATEGORIES[0].draw(Random(1)), BLUE_CLOTH, 200, Random(2)))
    color, alpha = pixels[..., :3], pixels[..., 3]
    assert alpha[0, 0] == 0
    assert (alpha == 255).mean() > 0.2
    assert not color[alpha == 0].any()


def test_every_fabric_contrasts_with_its_backdrop() -> None:
    for seed in range(300):
        rng = Random(seed)
        fabric = choose_fabric(rng)
        backdrop = choose_backdrop_color(fabric, rng)
        assert measure_contrast(fabric.color, backdrop) > 70
        if fabric.pattern is not Pattern.PLAIN:
            assert measure_contrast(fabric.second, backdrop) > 70


@pytest.mark.parametrize("seed", range(12))
def test_every_texture_keeps_the_mean_color(seed: int) -> None:
    backdrop = paint_backdrop((200, 150, 100), (300, 200), Random(seed))
    assert backdrop.shape == (3, 200, 300)
    np.testing.assert_allclose(backdrop.mean(axis=(1, 2)), (200, 150, 100), rtol=0.12)
