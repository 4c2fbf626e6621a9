"""The categories of the sample catalog, each with the function that draws one garment of it."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from demo.sample_catalog.accessories import draw_bag, draw_cap, draw_hat
from demo.sample_catalog.bottoms import draw_pants, draw_shorts, draw_skirt
from demo.sample_catalog.footwear import draw_boot, draw_sneaker, draw_socks
from demo.sample_catalog.marks import Garment
from demo.sample_catalog.tops import draw_coat, draw_dress, draw_hoodie, draw_shirt, draw_t_shirt


@dataclass(frozen=True)
class Category:
    """A category by its name, which is also its noun; a plural noun takes no article."""

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
