"""What a garment is made of: named colours and a pattern."""

from dataclasses import dataclass
from enum import StrEnum
from random import Random

import numpy as np
import numpy.typing as npt

from demo.sample_catalog.marks import Paint

Colour = tuple[int, int, int]
"""sRGB, 0 to 255."""

Weights = npt.NDArray[np.float32]

COLOURS: dict[str, Colour] = {
    "red": (204, 32, 38),
    "orange": (242, 128, 24),
    "yellow": (246, 208, 40),
    "green": (38, 138, 66),
    "blue": (38, 98, 212),
    "navy": (26, 34, 92),
    "purple": (122, 54, 168),
    "pink": (246, 150, 190),
    "brown": (112, 68, 38),
    "beige": (216, 192, 152),
    "grey": (132, 134, 138),
    "black": (34, 34, 38),
    "white": (246, 246, 244),
}

_TONE_JITTER = 0.07
_HUE_JITTER = 0.025
_PATTERN_CONTRAST = 150.0


class Pattern(StrEnum):
    PLAIN = "plain"
    STRIPED = "striped"
    DOTTED = "dotted"
    CHECKED = "checked"


@dataclass(frozen=True)
class Fabric:
    """The cloth of one product.

    ``second`` shows only in a pattern. ``period`` is the distance at which the pattern repeats, as a share
    of the garment's longer side; ``angle`` turns it, in degrees; ``density`` (0 to 1) widens the second colour.
    """

    colour_name: str
    second_name: str
    colour: Colour
    second: Colour
    pattern: Pattern
    period: float
    angle: float
    density: float

    def paint_colour(self, paint: Paint) -> Colour:
        """The flat colour of a paint; cloth without its pattern."""
        luminance = measure_luminance(self.colour)
        is_dark, is_light = luminance < 75, luminance > 185
        return {
            Paint.CLOTH: self.colour,
            Paint.PLAIN: self.colour,
            Paint.SHADED: lighten_colour(self.colour, 0.14) if is_dark else scale_colour(self.colour, 0.8),
            Paint.SEAM: lighten_colour(self.colour, 0.3) if is_dark else scale_colour(self.colour, 0.58),
            Paint.TRIM: (170, 170, 172) if is_light else (244, 243, 238),
            Paint.RUBBER: (240, 238, 230),
            Paint.SOLE: (120, 84, 54) if is_dark else (48, 40, 38),
            Paint.METAL: (196, 176, 120),
        }[paint]


def choose_fabric(rng: Random) -> Fabric:
    name = rng.choice(list(COLOURS))
    seconds = [other for other in COLOURS if measure_contrast(COLOURS[name], COLOURS[other]) > _PATTERN_CONTRAST]
    second_name = "white" if "white" in seconds and rng.random() < 0.4 else rng.choice(seconds)
    pattern = rng.choice((Pattern.PLAIN, *Pattern))
    return Fabric(
        colour_name=name,
        second_name=second_name,
        colour=_jitter_colour(COLOURS[name], rng),
        second=_jitter_colour(COLOURS[second_name], rng),
        pattern=pattern,
        period=rng.uniform(0.085, 0.13),
        angle=rng.choice((0, 0, 0, 90, 45)) if pattern is Pattern.STRIPED else rng.choice((0, 0, 45)),
        density=rng.random(),
    )


def weigh_pattern(fabric: Fabric, across: Weights, along: Weights, period_pixels: float) -> Weights:
    """How much of the second colour shows (0 to 1), at cloth coordinates counted in periods.

    Edges are one pixel soft, for which the length of a period in pixels is needed.
    """
    match fabric.pattern:
        case Pattern.PLAIN:
            return np.zeros(np.broadcast_shapes(across.shape, along.shape), dtype=np.float32)
        case Pattern.STRIPED:
            return _draw_band(along, 0.36 + 0.12 * fabric.density, period_pixels)
        case Pattern.CHECKED:
            share = 0.34 + 0.12 * fabric.density
            bands = _draw_band(along, share, period_pixels) + _draw_band(across, share, period_pixels)
            return bands * np.float32(0.5)
        case Pattern.DOTTED:
            shifted = across + 0.5 * (np.floor(along) % 2)
            distance = np.hypot(shifted % 1 - 0.5, along % 1 - 0.5)
            return _soften_edge(0.24 + 0.07 * fabric.density - distance, period_pixels)


def _draw_band(position: Weights, share: float, period_pixels: float) -> Weights:
    return _soften_edge(share / 2 - np.abs(position % 1 - 0.5), period_pixels)


def _soften_edge(depth: Weights, period_pixels: float) -> Weights:
    """1 inside, 0 outside and a ramp of one pixel between, for a depth below the edge counted in periods."""
    ramp: Weights = np.clip(depth * period_pixels + 0.5, 0, 1)
    return ramp


def lighten_colour(colour: Colour, share: float) -> Colour:
    red, green, blue = (round(value + (255 - value) * share) for value in colour)
    return red, green, blue


def scale_colour(colour: Colour, factor: float) -> Colour:
    red, green, blue = (min(255, round(value * factor)) for value in colour)
    return red, green, blue


def measure_luminance(colour: Colour) -> float:
    """Rec. 601 luma, 0 to 255."""
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]


def measure_contrast(one: Colour, other: Colour) -> float:
    """Euclidean distance in sRGB, 0 to 442."""
    return float(np.linalg.norm(np.subtract(one, other)))


def _jitter_colour(colour: Colour, rng: Random) -> Colour:
    tone = rng.uniform(1 - _TONE_JITTER, 1 + _TONE_JITTER)
    red, green, blue = (
        min(255, round(value * tone * rng.uniform(1 - _HUE_JITTER, 1 + _HUE_JITTER))) for value in colour
    )
    return red, green, blue
