from random import Random

import pytest

from demo.sample_catalog.fabric import COLOURS, Fabric, Pattern
from demo.sample_catalog.garments import CATEGORIES, Category
from demo.sample_catalog.marks import Garment
from demo.sample_catalog.products import SampleProduct, describe_product, design_product

PATTERN_WORDS = {
    Pattern.STRIPED: ("striped", "stripes"),
    Pattern.DOTTED: ("dotted", "dots"),
    Pattern.CHECKED: ("checked", "checks"),
}


def design_many(category: Category) -> list[SampleProduct]:
    return [design_product(7, f"p{number}", category) for number in range(12)]


@pytest.mark.parametrize("category", CATEGORIES, ids=lambda category: category.name)
def test_every_caption_names_colour_pattern_and_category(category: Category) -> None:
    for product in design_many(category):
        fabric = product.fabric
        for seed in range(12):
            caption = describe_product(product, Random(seed))
            assert fabric.colour_name in caption
            assert category.name in caption
            if fabric.pattern is not Pattern.PLAIN:
                assert any(word in caption for word in PATTERN_WORDS[fabric.pattern])


def tell_every_way(noun: str, garment: Garment, pattern: Pattern, *, is_plural: bool = False) -> set[str]:
    fabric = Fabric("orange", "white", COLOURS["orange"], COLOURS["white"], pattern, 0.1, 0, 0.5)
    product = SampleProduct("p1", Category(noun, lambda rng: garment, is_plural), garment, fabric)
    return {describe_product(product, Random(seed)) for seed in range(60)}


def test_captions_of_a_patterned_product() -> None:
    garment = Garment((), "long", "with short sleeves")
    assert tell_every_way("dress", garment, Pattern.STRIPED) == {
        "orange striped dress",
        "striped dress orange",
        "orange and white striped dress",
        "striped dress in orange and white",
        "orange dress with white stripes",
        "A long orange striped dress with short sleeves",
    }


def test_captions_of_a_plain_product_in_the_plural() -> None:
    assert tell_every_way("socks", Garment((), "short", ""), Pattern.PLAIN, is_plural=True) == {
        "orange socks",
        "socks orange",
        "plain orange socks",
        "short orange socks",
        "A pair of short orange socks",
    }


def test_the_article_suits_the_next_word() -> None:
    assert "An orange hat with a band" in tell_every_way("hat", Garment((), "", "with a band"), Pattern.PLAIN)


def test_a_product_is_the_same_whenever_it_is_designed() -> None:
    first, second = (design_product(7, "sku00001", CATEGORIES[0]) for _ in range(2))
    assert first.fabric == second.fabric
    assert str(first.garment) == str(second.garment)
    assert design_product(8, "sku00001", CATEGORIES[0]).fabric != first.fabric
