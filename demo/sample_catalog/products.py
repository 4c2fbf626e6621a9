"""Design the products of the sample catalog and describe them as a shop would."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from demo.sample_catalog.accessories import draw_bag, draw_cap, draw_hat
from demo.sample_catalog.bottoms import draw_pants, draw_shorts, draw_skirt
from demo.sample_catalog.fabric import Fabric, Pattern, choose_fabric
from demo.sample_catalog.footwear import draw_boot, draw_sneaker, draw_socks
from demo.sample_catalog.marks import Garment
from demo.sample_catalog.tops import draw_coat, draw_dress, draw_hoodie, draw_shirt, draw_t_shirt

_PATTERN_NOUNS = {Pattern.STRIPED: "stripes", Pattern.DOTTED: "dots", Pattern.CHECKED: "checks"}


@dataclass(frozen=True)
class Category:
    """A category. Its name is the noun in captions, and plural nouns take no article."""

    name: str
    draw: Callable[[Random], Garment]
    is_plural: bool = False


CATEGORIES = (
    Category("bag", draw_bag),
    Category("boot", draw_boot),
    Category("cap", draw_cap),
    Category("coat", draw_coat),
    Category("dress", draw_dress),
    Category("hat", draw_hat),
    Category("hoodie", draw_hoodie),
    Category("pants", draw_pants, is_plural=True),
    Category("shirt", draw_shirt),
    Category("shorts", draw_shorts, is_plural=True),
    Category("skirt", draw_skirt),
    Category("sneaker", draw_sneaker),
    Category("socks", draw_socks, is_plural=True),
    Category("t-shirt", draw_t_shirt),
)


@dataclass(frozen=True)
class SampleProduct:
    product_id: str
    category: Category
    garment: Garment
    fabric: Fabric

    @property
    def display_name(self) -> str:
        """Return a name such as ``Striped Dress Red``."""
        pattern = "" if self.fabric.pattern is Pattern.PLAIN else self.fabric.pattern.title()
        return f"{pattern} {self.category.name.title()} {self.fabric.color_name.title()}".lstrip()


def design_product(seed: int, product_id: str, category: Category) -> SampleProduct:
    """Design a product. It depends only on the arguments, not on other products."""
    rng = Random(f"{seed}/{product_id}/design")
    return SampleProduct(product_id, category, category.draw(rng), choose_fabric(rng))


def describe_product(product: SampleProduct, rng: Random) -> str:
    """Return one of several captions. Each names the color, the category and, unless it is plain, the pattern."""
    if product.fabric.pattern is Pattern.PLAIN:
        return rng.choice(_list_plain_captions(product))
    return rng.choice(_list_pattern_captions(product))


def _list_plain_captions(product: SampleProduct) -> tuple[str, ...]:
    color, noun, garment = product.fabric.color_name, product.category.name, product.garment
    return (
        f"{color} {noun}",
        f"{noun} {color}",
        f"plain {color} {noun}",
        _join_words(garment.adjective, color, noun),
        _make_full_caption(product, color),
    )


def _list_pattern_captions(product: SampleProduct) -> tuple[str, ...]:
    color, second, pattern = product.fabric.color_name, product.fabric.second_name, product.fabric.pattern
    noun = product.category.name
    return (
        f"{color} {pattern} {noun}",
        f"{pattern} {noun} {color}",
        f"{color} and {second} {pattern} {noun}",
        f"{pattern} {noun} in {color} and {second}",
        f"{color} {noun} with {second} {_PATTERN_NOUNS[pattern]}",
        _make_full_caption(product, f"{color} {pattern}"),
    )


def _make_full_caption(product: SampleProduct, look: str) -> str:
    """Return a caption such as ``A long red striped dress with short sleeves``."""
    words = _join_words(product.garment.adjective, look, product.category.name, product.garment.detail)
    if product.category.is_plural:
        return f"A pair of {words}"
    return f"{'An' if words[0] in 'aeiou' else 'A'} {words}"


def _join_words(*words: str) -> str:
    return " ".join(word for word in words if word)
