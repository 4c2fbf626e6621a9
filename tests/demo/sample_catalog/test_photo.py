from random import Random

import numpy as np
import pytest

from demo.sample_catalog.fabric import COLOURS, Fabric, Pattern
from demo.sample_catalog.garments import CATEGORIES, Category
from demo.sample_catalog.photo import take_cutout, take_photo

BLUE_CLOTH = Fabric("blue", "white", COLOURS["blue"], COLOURS["white"], Pattern.PLAIN, 0.1, 0, 0.5)


@pytest.mark.parametrize("category", CATEGORIES, ids=lambda category: category.name)
def test_a_photo_shows_the_colour_of_its_garment(category: Category) -> None:
    photo = take_photo(category.draw(Random(1)), BLUE_CLOTH, 200, Random(2))
    red, _, blue = (np.asarray(band, np.int16) for band in photo.split())
    assert ((blue - red) > 80).mean() > 0.1


@pytest.mark.parametrize("longest_side", [300, 1600])
def test_the_longest_side_is_as_asked(longest_side: int) -> None:
    assert max(take_photo(CATEGORIES[0].draw(Random(1)), BLUE_CLOTH, longest_side, Random(2)).size) == longest_side


def test_photos_of_one_garment_differ() -> None:
    garment = CATEGORIES[0].draw(Random(1))
    assert take_photo(garment, BLUE_CLOTH, 200, Random(2)) != take_photo(garment, BLUE_CLOTH, 200, Random(3))


def test_a_cutout_is_transparent_around_the_garment_with_black_hidden_there() -> None:
    pixels = np.asarray(take_cutout(CATEGORIES[0].draw(Random(1)), BLUE_CLOTH, 200, Random(2)))
    colour, alpha = pixels[..., :3], pixels[..., 3]
    assert alpha[0, 0] == 0
    assert (alpha == 255).mean() > 0.2
    assert not colour[alpha == 0].any()
