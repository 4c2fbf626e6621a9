from random import Random

import numpy as np
import numpy.typing as npt
import pytest

from demo.sample_catalog.canvas import Placement, Pose, paint_garment
from demo.sample_catalog.fabric import COLORS, Fabric, Pattern
from demo.sample_catalog.marks import Garment
from demo.sample_catalog.products import CATEGORIES, Category, SampleProduct, describe_product, design_product

GREY_CLOTH = Fabric("grey", "white", COLORS["grey"], COLORS["white"], Pattern.PLAIN, 0.1, 0, 0.5)
FRAME = (48, 48)
PATTERN_WORDS = {
    Pattern.STRIPED: ("striped", "stripes"),
    Pattern.DOTTED: ("dotted", "dots"),
    Pattern.CHECKED: ("checked", "checks"),
}


def draw_shape(category: Category, number: int) -> npt.NDArray[np.float32]:
    """Draw a garment in plain grey and upright, which leaves only its shape."""
    garment = category.draw(Random(f"{category.name}/{number}"))
    placement = Placement.fit(garment, FRAME, Pose(0, is_mirrored=False, share=0.9, position=(0.5, 0.5)))
    cutout = paint_garment(garment, GREY_CLOTH, placement, FRAME)
    shape: npt.NDArray[np.float32] = cutout.color.mean(axis=0) * cutout.coverage
    return shape.ravel()


def test_at_least_ten_categories_with_distinct_names() -> None:
    assert len({category.name for category in CATEGORIES}) == len(CATEGORIES) >= 10


def test_shape_alone_identifies_the_category() -> None:
    known = [(category.name, draw_shape(category, number)) for category in CATEGORIES for number in range(25)]
    shapes = np.stack([shape for _, shape in known])
    queries = [(category.name, draw_shape(category, number)) for category in CATEGORIES for number in range(100, 106)]
    found = [known[int(np.abs(shapes - shape).sum(axis=1).argmin())][0] for _, shape in queries]
    correct = sum(name == match for (name, _), match in zip(queries, found, strict=True))
    assert correct / len(queries) > 0.9


@pytest.mark.parametrize("category", CATEGORIES, ids=lambda category: category.name)
def test_proportions_vary_within_a_category(category: Category) -> None:
    assert np.abs(draw_shape(category, 1) - draw_shape(category, 2)).max() > 50


def design_many(category: Category) -> list[SampleProduct]:
    return [design_product(7, f"p{number}", category) for number in range(12)]


@pytest.mark.parametrize("category", CATEGORIES, ids=lambda category: category.name)
def test_every_caption_contains_color_pattern_and_category(category: Category) -> None:
    for product in design_many(category):
        fabric = product.fabric
        for seed in range(12):
            caption = describe_product(product, Random(seed))
            assert fabric.color_name in caption
            assert category.name in caption
            if fabric.pattern is not Pattern.PLAIN:
                assert any(word in caption for word in PATTERN_WORDS[fabric.pattern])


def list_captions(noun: str, garment: Garment, pattern: Pattern, *, is_plural: bool = False) -> set[str]:
    fabric = Fabric("orange", "white", COLORS["orange"], COLORS["white"], pattern, 0.1, 0, 0.5)
    product = SampleProduct("p1", Category(noun, lambda rng: garment, is_plural), garment, fabric)
    return {describe_product(product, Random(seed)) for seed in range(60)}


def test_captions_of_a_patterned_product() -> None:
    garment = Garment((), "long", "with short sleeves")
    assert list_captions("dress", garment, Pattern.STRIPED) == {
        "orange striped dress",
        "striped dress orange",
        "orange and white striped dress",
        "striped dress in orange and white",
        "orange dress with white stripes",
        "A long orange striped dress with short sleeves",
    }


def test_captions_of_a_plain_plural_product() -> None:
    assert list_captions("socks", Garment((), "short", ""), Pattern.PLAIN, is_plural=True) == {
        "orange socks",
        "socks orange",
        "plain orange socks",
        "short orange socks",
        "A pair of short orange socks",
    }


def test_article_matches_the_next_word() -> None:
    assert "An orange hat with a band" in list_captions("hat", Garment((), "", "with a band"), Pattern.PLAIN)


def test_product_depends_only_on_seed_and_id() -> None:
    first, second = (design_product(7, "sku00001", CATEGORIES[0]) for _ in range(2))
    assert first.fabric == second.fabric
    assert str(first.garment) == str(second.garment)
    assert design_product(8, "sku00001", CATEGORIES[0]).fabric != first.fabric
