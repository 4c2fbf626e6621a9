"""Define the marks that make up a garment: panels of cloth, strokes and discs.

Coordinates are in garment units: x points right, y down, and one unit is about half a garment. Only ratios matter,
because each image scales the garment to its frame.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Self

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]
"""A path, shape (n, 2)."""

_CURVE_STEPS = np.linspace(0, 1, 13)[1:, None]


class Paint(Enum):
    """The paint of a mark; the fabric of a product maps it to a color."""

    CLOTH = auto()
    """The product's color with its pattern."""
    PLAIN = auto()
    """The product's color without the pattern: collars, waistbands, straps."""
    SHADED = auto()
    """A darker tone of the product's color: linings, cuffs, ribs."""
    SEAM = auto()
    """A tone that is visible on the cloth: stitches, folds, creases."""
    TRIM = auto()
    """A near-white that is visible on the cloth: laces, cords."""
    RUBBER = auto()
    """Off-white: the soles of sneakers."""
    SOLE = auto()
    """Near-black: the soles of boots."""
    METAL = auto()
    """Buckles, clasps, zips."""


@dataclass(frozen=True)
class Panel:
    """A filled shape; ``grain`` rotates its pattern, in degrees clockwise."""

    outline: Points
    paint: Paint = Paint.CLOTH
    grain: float = 0.0


@dataclass(frozen=True)
class Stroke:
    """An open line, ``width`` garment units wide."""

    path: Points
    width: float = 0.012
    paint: Paint = Paint.SEAM


@dataclass(frozen=True)
class Disc:
    """A filled circle: a button, an eyelet or a pompom."""

    center: Points
    radius: float
    paint: Paint = Paint.TRIM


Mark = Panel | Stroke | Disc


@dataclass(frozen=True)
class Garment:
    """A shape without color: its marks from back to front, and words for its caption.

    A caption has the ``adjective`` before the color ("long") and the ``detail`` after the noun ("with short sleeves").
    Either may be empty.
    """

    marks: tuple[Mark, ...]
    adjective: str = ""
    detail: str = ""


class Pen:
    """Traces a path of lines and curves. Each method returns the pen, so calls can be chained."""

    def __init__(self, x: float, y: float) -> None:
        self._pieces: list[Points] = [np.array([[x, y]])]

    def line(self, x: float, y: float) -> Self:
        self._pieces.append(np.array([[x, y]]))
        return self

    def curve(self, control_x: float, control_y: float, x: float, y: float) -> Self:
        """Add a quadratic Bezier curve."""
        start, control, end = self._pieces[-1][-1], np.array([control_x, control_y]), np.array([x, y])
        t = _CURVE_STEPS
        self._pieces.append((1 - t) ** 2 * start + 2 * t * (1 - t) * control + t**2 * end)
        return self

    def path(self) -> Points:
        return np.concatenate(self._pieces)

    def closed_by_mirror(self) -> Points:
        """Return a closed outline: the path, then its mirror image across the line x = 0 in reverse order."""
        path = self.path()
        return np.concatenate([path, path[::-1] * (-1, 1)])


def trace_line(*points: tuple[float, float]) -> Points:
    return np.array(points, dtype=np.float64)


def trace_ellipse(x: float, y: float, radius_x: float, radius_y: float) -> Points:
    angles = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    return np.stack([x + radius_x * np.cos(angles), y + radius_y * np.sin(angles)], axis=1)


def mirror_mark(mark: Mark) -> Mark:
    """Return the mirror image of a mark across the line x = 0."""
    match mark:
        case Panel():
            return replace(mark, outline=mark.outline * (-1, 1), grain=-mark.grain)
        case Stroke():
            return replace(mark, path=mark.path * (-1, 1))
        case Disc():
            return replace(mark, center=mark.center * (-1, 1))


def on_both_sides(*marks: Mark) -> tuple[Mark, ...]:
    return (*marks, *(mirror_mark(mark) for mark in marks))


def collect_points(marks: Iterable[Mark]) -> Points:
    """Return points that span the marks, to measure the size of the garment."""
    reached = []
    for mark in marks:
        match mark:
            case Panel():
                reached.append(mark.outline)
            case Stroke():
                reached += [mark.path - mark.width / 2, mark.path + mark.width / 2]
            case Disc():
                reached += [(mark.center - mark.radius)[None], (mark.center + mark.radius)[None]]
    return np.concatenate(reached)
