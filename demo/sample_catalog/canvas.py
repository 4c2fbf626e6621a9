"""Puts a garment's marks on pixels."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from demo.sample_catalog.fabric import Colour, Fabric, Pattern, scale_colour, weigh_pattern
from demo.sample_catalog.marks import Disc, Garment, Mark, Paint, Panel, Points, Stroke
from demo.sample_catalog.placement import Placement, Size

Pixels = npt.NDArray[np.float32]

_OVERSAMPLING = 2
_FORM_REDUCTION = 2
"""Volume is soft, so half the resolution is enough for it."""
_OUTLINE_SHARE = 0.006
"""Width of the outline round each panel, as a share of the garment's longer side."""
_THIN_LINE_PIXELS = 4 * _OVERSAMPLING
"""Up to here nobody sees whether the joints of a line are rounded, and rounding them costs more than the line."""


@dataclass(frozen=True)
class Cutout:
    """A painted garment: colour (3, height, width) in 0 to 255; coverage and form (height, width) in 0 to 1."""

    colour: Pixels
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
    """Three layers of one photo: colour, coverage, and form, which is dark at the edge of each panel.

    Colour and coverage are drawn oversampled and reduced at the end, which smooths their edges.
    """

    def __init__(self, fabric: Fabric, placement: Placement, size: Size) -> None:
        self._fabric = fabric
        self._placement = placement
        self._size = size
        width, height = size
        self._colour = Image.new("RGB", (width * _OVERSAMPLING, height * _OVERSAMPLING), fabric.colour)
        self._coverage = Image.new("L", self._colour.size)
        self._form = Image.new("L", (width // _FORM_REDUCTION, height // _FORM_REDUCTION), 255)
        self._on_colour = ImageDraw.Draw(self._colour)
        self._on_coverage = ImageDraw.Draw(self._coverage)

    def draw(self, mark: Mark) -> None:
        colour = self._fabric.paint_colour(mark.paint)
        match mark:
            case Panel():
                self._draw_panel(mark, colour)
            case Stroke():
                self._draw_line(mark.path, mark.width, colour)
            case Disc():
                self._draw_disc(mark, colour)

    def finish(self) -> Cutout:
        bands = [np.asarray(band) for band in self._colour.reduce(_OVERSAMPLING).split()]
        form = self._form.resize(self._size, Image.Resampling.BILINEAR)
        return Cutout(np.array(bands, np.float32), to_shares(self._coverage.reduce(_OVERSAMPLING)), to_shares(form))

    def _draw_panel(self, panel: Panel, colour: Colour) -> None:
        outline = self._placement.locate(panel.outline)
        corners = _list_corners(outline * _OVERSAMPLING)
        self._on_colour.polygon(corners, fill=colour)
        self._on_coverage.polygon(corners, fill=255)
        if panel.paint is Paint.CLOTH and self._fabric.pattern is not Pattern.PLAIN:
            self._print_pattern(outline, panel.grain)
        self._deepen_edges(outline)
        closed = np.concatenate([panel.outline, panel.outline[:2]])
        self._draw_line(closed, _OUTLINE_SHARE * self._placement.extent, scale_colour(colour, 0.62))

    def _print_pattern(self, outline: Points, grain: float) -> None:
        left, top = np.maximum(np.floor(outline.min(axis=0)).astype(int), 0).tolist()
        right, bottom = (np.ceil(outline.max(axis=0)).astype(int) + 1).tolist()
        across, along = self._measure_cloth(np.arange(left, right) + 0.5, np.arange(top, bottom) + 0.5, grain)
        period_pixels = self._fabric.period * self._placement.extent * self._placement.scale
        weights = Image.fromarray((weigh_pattern(self._fabric, across, along, period_pixels) * 255).astype(np.uint8))
        shape = Image.new("L", (weights.width * _OVERSAMPLING, weights.height * _OVERSAMPLING))
        ImageDraw.Draw(shape).polygon(_list_corners((outline - (left, top)) * _OVERSAMPLING), fill=255)
        shown = ImageChops.multiply(shape, weights.resize(shape.size, Image.Resampling.BILINEAR))
        self._colour.paste(self._fabric.second, (left * _OVERSAMPLING, top * _OVERSAMPLING), shown)

    def _measure_cloth(self, x: Points, y: Points, grain: float) -> tuple[Pixels, Pixels]:
        """Coordinates on the cloth, in periods of its pattern, of each pixel of columns ``x`` and rows ``y``."""
        radians = np.radians(grain + self._fabric.angle)
        turn = np.array([[np.cos(radians), -np.sin(radians)], [np.sin(radians), np.cos(radians)]])
        to_cloth = np.linalg.inv(self._placement.matrix) @ turn / (self._fabric.period * self._placement.extent)
        columns = np.outer(x - self._placement.offset[0], to_cloth[0]).astype(np.float32)
        rows = np.outer(y - self._placement.offset[1], to_cloth[1]).astype(np.float32)
        return columns[None, :, 0] + rows[:, None, 0], columns[None, :, 1] + rows[:, None, 1]

    def _deepen_edges(self, outline: Points) -> None:
        """Give a panel volume: bright in the middle, darker towards its edge."""
        small = outline / _FORM_REDUCTION
        left, top = (np.floor(small.min(axis=0)).astype(int) - 1).tolist()
        width, height = (np.ceil(np.ptp(small, axis=0)).astype(int) + 3).tolist()
        shape = Image.new("L", (width, height))
        ImageDraw.Draw(shape).polygon(_list_corners(small - (left, top)), fill=255)
        self._form.paste(shape.filter(ImageFilter.BoxBlur(0.12 * min(width, height))), (left, top), shape)

    def _draw_line(self, path: Points, width: float, colour: Colour) -> None:
        thickness = round(max(1.5, width * self._placement.scale) * _OVERSAMPLING)
        corners = _list_corners(self._placement.locate(path) * _OVERSAMPLING)
        joint = "curve" if thickness > _THIN_LINE_PIXELS else None
        self._on_colour.line(corners, fill=colour, width=thickness, joint=joint)
        self._on_coverage.line(corners, fill=255, width=thickness, joint=joint)

    def _draw_disc(self, disc: Disc, colour: Colour) -> None:
        centre = self._placement.locate(disc.centre) * _OVERSAMPLING
        radius = max(1.0, disc.radius * self._placement.scale) * _OVERSAMPLING
        box = _list_corners(np.array([centre - radius, centre + radius]))
        self._on_colour.ellipse(box, fill=colour, outline=scale_colour(colour, 0.55), width=_OVERSAMPLING)
        self._on_coverage.ellipse(box, fill=255)


def to_shares(image: Image.Image) -> Pixels:
    """An 8-bit grey image as shares of 1, shape (height, width)."""
    return np.asarray(image, np.float32) * np.float32(1 / 255)


def _list_corners(points: Points) -> list[float]:
    """x and y in turn, the form in which Pillow draws fastest."""
    corners: list[float] = points.ravel().tolist()
    return corners
