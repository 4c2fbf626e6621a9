"""Define the cloth of garments: named colors and a pattern."""

from dataclasses import dataclass
from enum import StrEnum
from random import Random

import numpy as np
import numpy.typing as npt

from demo.sample_catalog.marks import Paint

Color = tuple[int, int, int]
"""sRGB, 0 to 255."""

Weights = npt.NDArray[np.float32]

COLORS: dict[str, Color] = {
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

    ``second`` is the second color of a pattern. ``period`` is the distance after which the pattern repeats, as a share
    of the garment's longer side. ``angle`` rotates the pattern, in degrees. A higher ``density`` (0 to 1) shows more of
    the second color.
    """

    color_name: str
    second_name: str
    color: Color
    second: Color
    pattern: Pattern
    period: float
    angle: float
    density: float

    def paint_color(self, paint: Paint) -> Color:
        """Return the flat color of a paint, without the pattern of the cloth."""
        luminance = measure_luminance(self.color)
        is_dark, is_light = luminance < 75, luminance > 185
        return {
            Paint.CLOTH: self.color,
            Paint.PLAIN: self.color,
            Paint.SHADED: lighten_color(self.color, 0.14) if is_dark else scale_color(self.color, 0.8),
            Paint.SEAM: lighten_color(self.color, 0.3) if is_dark else scale_color(self.color, 0.58),
            Paint.TRIM: (170, 170, 172) if is_light else (244, 243, 238),
            Paint.RUBBER: (240, 238, 230),
            Paint.SOLE: (120, 84, 54) if is_dark else (48, 40, 38),
            Paint.METAL: (196, 176, 120),
        }[paint]


def choose_fabric(rng: Random) -> Fabric:
    name = rng.choice(list(COLORS))
    seconds = [other for other in COLORS if measure_contrast(COLORS[name], COLORS[other]) > _PATTERN_CONTRAST]
    second_name = "white" if "white" in seconds and rng.random() < 0.4 else rng.choice(seconds)
    pattern = rng.choice((Pattern.PLAIN, *Pattern))
    return Fabric(
        color_name=name,
        second_name=second_name,
        color=_jitter_color(COLORS[name], rng),
        second=_jitter_color(COLORS[second_name], rng),
        pattern=pattern,
        period=rng.uniform(0.085, 0.13),
        angle=rng.choice((0, 0, 0, 90, 45)) if pattern is Pattern.STRIPED else rng.choice((0, 0, 45)),
        density=rng.random(),
    )


def compute_pattern_weights(fabric: Fabric, across: Weights, along: Weights, period_pixels: float) -> Weights:
    """Return the share of the second color (0 to 1) at cloth coordinates, which are in periods of the pattern.

    ``period_pixels``, the length of a period, is needed to make edges one pixel wide.
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
    """Return 1 inside, 0 outside, and a one-pixel ramp at the edge. ``depth`` is the distance from it in periods."""
    ramp: Weights = np.clip(depth * period_pixels + 0.5, 0, 1)
    return ramp


def lighten_color(color: Color, share: float) -> Color:
    red, green, blue = (round(value + (255 - value) * share) for value in color)
    return red, green, blue


def scale_color(color: Color, factor: float) -> Color:
    red, green, blue = (min(255, round(value * factor)) for value in color)
    return red, green, blue


def measure_luminance(color: Color) -> float:
    """Return the Rec. 601 luma, 0 to 255."""
    return 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2]


def measure_contrast(one: Color, other: Color) -> float:
    """Return the Euclidean distance in sRGB, 0 to 442."""
    return float(np.linalg.norm(np.subtract(one, other)))


def _jitter_color(color: Color, rng: Random) -> Color:
    tone = rng.uniform(1 - _TONE_JITTER, 1 + _TONE_JITTER)
    red, green, blue = (
        min(255, round(value * tone * rng.uniform(1 - _HUE_JITTER, 1 + _HUE_JITTER))) for value in color
    )
    return red, green, blue
