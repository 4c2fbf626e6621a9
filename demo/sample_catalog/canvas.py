"""Place a garment in a frame and draw its marks as pixels."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from demo.sample_catalog.fabric import Color, Fabric, Pattern, compute_pattern_weights, scale_color
from demo.sample_catalog.marks import Disc, Garment, Mark, Paint, Panel, Points, Stroke, collect_points

Pixels = npt.NDArray[np.float32]

Size = tuple[int, int]
"""Width and height in pixels."""

_OVERSAMPLING = 2
_FORM_REDUCTION = 2
"""Shading is soft, so half the resolution is enough."""
_OUTLINE_SHARE = 0.006
"""Width of the outline of each panel, as a share of the garment's longer side."""
_THIN_LINE_PIXELS = 4 * _OVERSAMPLING
"""Joints of thinner lines are not rounded: the difference is invisible, and rounding takes longer than the line."""


@dataclass(frozen=True)
class Pose:
    """The pose of a garment in its frame: rotated clockwise by ``degrees``, and mirrored if ``is_mirrored``.

    The garment fills ``share`` of the side of the frame that limits its size. ``position`` places it in the remaining
    space: 0 is left or top, 1 is right or bottom.
    """

    degrees: float
    is_mirrored: bool
    share: float
    position: tuple[float, float]


@dataclass(frozen=True)
class Placement:
    """The mapping from garment units to pixels: pixel = point @ matrix + offset."""

    matrix: Points
    offset: Points
    scale: float
    """Pixels per garment unit."""
    extent: float
    """The garment's longer side in garment units."""

    @classmethod
    def fit(cls, garment: Garment, frame: Size, pose: Pose) -> Self:
        points, room = collect_points(garment.marks), np.array(frame)
        cos, sin = np.cos(np.radians(pose.degrees)), np.sin(np.radians(pose.degrees))
        turn = np.array([[cos, sin], [-sin, cos]]) * ([[-1], [1]] if pose.is_mirrored else 1)
        turned = points @ turn
        span = np.ptp(turned, axis=0)
        scale = float((pose.share * room / span).min())
        offset = (room - span * scale) * pose.position - turned.min(axis=0) * scale
        return cls(turn * scale, offset, scale, float(np.ptp(points, axis=0).max()))

    def locate(self, points: Points) -> Points:
        return points @ self.matrix + self.offset


@dataclass(frozen=True)
class Cutout:
    """A painted garment: color (3, height, width) from 0 to 255; coverage and form (height, width) from 0 to 1."""

    color: Pixels
    coverage: Pixels
    form: Pixels

    @property
    def size(self) -> Size:
        height, width = self.coverage.shape
        return width, height


def paint_garment(garment: Garment, fabric: Fabric, placement: Placement, size: Size) -> Cutout:
    canvas = _Canvas(fabric, placement, size)
    for mark in garment.marks:
        canvas.draw(mark)
    return canvas.finish()


class _Canvas:
    """Three layers of one image: color, coverage and form. The form is dark at the edges of panels.

    Color and coverage are drawn oversampled and reduced at the end to smooth their edges.
    """

    def __init__(self, fabric: Fabric, placement: Placement, size: Size) -> None:
        self._fabric = fabric
        self._placement = placement
        self._size = size
        width, height = size
        self._color = Image.new("RGB", (width * _OVERSAMPLING, height * _OVERSAMPLING), fabric.color)
        self._coverage = Image.new("L", self._color.size)
        self._form = Image.new("L", (width // _FORM_REDUCTION, height // _FORM_REDUCTION), 255)
        self._on_color = ImageDraw.Draw(self._color)
        self._on_coverage = ImageDraw.Draw(self._coverage)

    def draw(self, mark: Mark) -> None:
        color = self._fabric.paint_color(mark.paint)
        match mark:
            case Panel():
                self._draw_panel(mark, color)
            case Stroke():
                self._draw_line(mark.path, mark.width, color)
            case Disc():
                self._draw_disc(mark, color)

    def finish(self) -> Cutout:
        bands = [np.asarray(band) for band in self._color.reduce(_OVERSAMPLING).split()]
        form = self._form.resize(self._size, Image.Resampling.BILINEAR)
        return Cutout(np.array(bands, np.float32), to_shares(self._coverage.reduce(_OVERSAMPLING)), to_shares(form))

    def _draw_panel(self, panel: Panel, color: Color) -> None:
        outline = self._placement.locate(panel.outline)
        corners = _list_corners(outline * _OVERSAMPLING)
        self._on_color.polygon(corners, fill=color)
        self._on_coverage.polygon(corners, fill=255)
        if panel.paint is Paint.CLOTH and self._fabric.pattern is not Pattern.PLAIN:
            self._print_pattern(outline, panel.grain)
        self._shade_edges(outline)
        closed = np.concatenate([panel.outline, panel.outline[:2]])
        self._draw_line(closed, _OUTLINE_SHARE * self._placement.extent, scale_color(color, 0.62))

    def _print_pattern(self, outline: Points, grain: float) -> None:
        left, top = np.maximum(np.floor(outline.min(axis=0)).astype(int), 0).tolist()
        right, bottom = (np.ceil(outline.max(axis=0)).astype(int) + 1).tolist()
        across, along = self._map_to_cloth(np.arange(left, right) + 0.5, np.arange(top, bottom) + 0.5, grain)
        period_pixels = self._fabric.period * self._placement.extent * self._placement.scale
        weights = compute_pattern_weights(self._fabric, across, along, period_pixels) * 255
        printed = Image.fromarray(weights.astype(np.uint8))
        shape = Image.new("L", (printed.width * _OVERSAMPLING, printed.height * _OVERSAMPLING))
        ImageDraw.Draw(shape).polygon(_list_corners((outline - (left, top)) * _OVERSAMPLING), fill=255)
        shown = ImageChops.multiply(shape, printed.resize(shape.size, Image.Resampling.BILINEAR))
        self._color.paste(self._fabric.second, (left * _OVERSAMPLING, top * _OVERSAMPLING), shown)

    def _map_to_cloth(self, x: Points, y: Points, grain: float) -> tuple[Pixels, Pixels]:
        """Return the cloth coordinates of the pixels in columns ``x`` and rows ``y``, in periods of the pattern."""
        radians = np.radians(grain + self._fabric.angle)
        turn = np.array([[np.cos(radians), -np.sin(radians)], [np.sin(radians), np.cos(radians)]])
        to_cloth = np.linalg.inv(self._placement.matrix) @ turn / (self._fabric.period * self._placement.extent)
        columns = np.outer(x - self._placement.offset[0], to_cloth[0]).astype(np.float32)
        rows = np.outer(y - self._placement.offset[1], to_cloth[1]).astype(np.float32)
        return columns[None, :, 0] + rows[:, None, 0], columns[None, :, 1] + rows[:, None, 1]

    def _shade_edges(self, outline: Points) -> None:
        """Make a panel look three-dimensional: bright in the middle, darker toward the edge."""
        small = outline / _FORM_REDUCTION
        left, top = (np.floor(small.min(axis=0)).astype(int) - 1).tolist()
        width, height = (np.ceil(np.ptp(small, axis=0)).astype(int) + 3).tolist()
        shape = Image.new("L", (width, height))
        ImageDraw.Draw(shape).polygon(_list_corners(small - (left, top)), fill=255)
        self._form.paste(shape.filter(ImageFilter.BoxBlur(0.12 * min(width, height))), (left, top), shape)

    def _draw_line(self, path: Points, width: float, color: Color) -> None:
        thickness = round(max(1.5, width * self._placement.scale) * _OVERSAMPLING)
        corners = _list_corners(self._placement.locate(path) * _OVERSAMPLING)
        joint = "curve" if thickness > _THIN_LINE_PIXELS else None
        self._on_color.line(corners, fill=color, width=thickness, joint=joint)
        self._on_coverage.line(corners, fill=255, width=thickness, joint=joint)

    def _draw_disc(self, disc: Disc, color: Color) -> None:
        center = self._placement.locate(disc.center) * _OVERSAMPLING
        radius = max(1.0, disc.radius * self._placement.scale) * _OVERSAMPLING
        box = _list_corners(np.array([center - radius, center + radius]))
        self._on_color.ellipse(box, fill=color, outline=scale_color(color, 0.55), width=_OVERSAMPLING)
        self._on_coverage.ellipse(box, fill=255)


def to_shares(image: Image.Image) -> Pixels:
    """Convert an 8-bit grayscale image to values from 0 to 1, shape (height, width)."""
    return np.asarray(image, np.float32) * np.float32(1 / 255)


def _list_corners(points: Points) -> list[float]:
    """Return alternating x and y values, the format that Pillow draws fastest."""
    corners: list[float] = points.ravel().tolist()
    return corners
