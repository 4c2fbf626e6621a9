"""Designs the products of the sample catalog and describes them as a shop would."""

from dataclasses import dataclass
from random import Random

from demo.sample_catalog.fabric import Fabric, Pattern, choose_fabric
from demo.sample_catalog.garments import Category
from demo.sample_catalog.marks import Garment

_PATTERN_NOUNS = {Pattern.STRIPED: "stripes", Pattern.DOTTED: "dots", Pattern.CHECKED: "checks"}


@dataclass(frozen=True)
class SampleProduct:
    product_id: str
    category: Category
    garment: Garment
    fabric: Fabric

    @property
    def display_name(self) -> str:
        """Such as ``Striped Dress Red``."""
        pattern = "" if self.fabric.pattern is Pattern.PLAIN else self.fabric.pattern.title()
        return f"{pattern} {self.category.name.title()} {self.fabric.colour_name.title()}".lstrip()


def design_product(seed: int, product_id: str, category: Category) -> SampleProduct:
    """The same arguments give the same product, whatever else is designed."""
    rng = Random(f"{seed}/{product_id}/design")
    return SampleProduct(product_id, category, category.draw(rng), choose_fabric(rng))


def describe_product(product: SampleProduct, rng: Random) -> str:
    """A caption in one of several wordings; each names the colour, the pattern unless plain, and the category."""
    if product.fabric.pattern is Pattern.PLAIN:
        return rng.choice(_word_plain_captions(product))
    return rng.choice(_word_pattern_captions(product))


def _word_plain_captions(product: SampleProduct) -> tuple[str, ...]:
    colour, noun, garment = product.fabric.colour_name, product.category.name, product.garment
    return (
        f"{colour} {noun}",
        f"{noun} {colour}",
        f"plain {colour} {noun}",
        _join_words(garment.adjective, colour, noun),
        _word_full_caption(product, colour),
    )


def _word_pattern_captions(product: SampleProduct) -> tuple[str, ...]:
    colour, second, pattern = product.fabric.colour_name, product.fabric.second_name, product.fabric.pattern
    noun = product.category.name
    return (
        f"{colour} {pattern} {noun}",
        f"{pattern} {noun} {colour}",
        f"{colour} and {second} {pattern} {noun}",
        f"{pattern} {noun} in {colour} and {second}",
        f"{colour} {noun} with {second} {_PATTERN_NOUNS[pattern]}",
        _word_full_caption(product, f"{colour} {pattern}"),
    )


def _word_full_caption(product: SampleProduct, look: str) -> str:
    """Such as ``A long red striped dress with short sleeves``."""
    words = _join_words(product.garment.adjective, look, product.category.name, product.garment.detail)
    if product.category.is_plural:
        return f"A pair of {words}"
    return f"{'An' if words[0] in 'aeiou' else 'A'} {words}"


def _join_words(*words: str) -> str:
    return " ".join(word for word in words if word)
