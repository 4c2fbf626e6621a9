"""Resize and crop a photo as a model's preprocessing demands."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from cykooz_resizer import FilterType

try:
    import cykooz_resizer
except ImportError:  # no package for Linux on ARM
    cykooz_resizer = None

Box = tuple[float, float, float, float]
"""Left, top, right and bottom edge, in pixels of the photo."""

PILLOW_FILTERS: Mapping[str, Image.Resampling] = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}
"""The interpolations that we reproduce; both antialias."""


def resample(photo: Image.Image, box: Box, width: int, height: int, interpolation: str) -> np.ndarray:
    """Resize a part of an RGB photo to uint8 pixels [height, width, 3]; the filter looks beyond the part's edges."""
    if cykooz_resizer is None:
        return np.asarray(photo.resize((width, height), PILLOW_FILTERS[interpolation], box))
    # Bytes are passed rather than Pillow's own memory, whose layout is nobody's promise.
    source = cykooz_resizer.ImageData(*photo.size, cykooz_resizer.PixelType.U8x3, photo.tobytes())
    target = cykooz_resizer.ImageData(width, height, cykooz_resizer.PixelType.U8x3)
    left, top, right, bottom = box
    options = cykooz_resizer.ResizeOptions(
        resize_alg=cykooz_resizer.ResizeAlg.convolution(_name_filter(interpolation)),
        crop_box=cykooz_resizer.CropBox(left, top, right - left, bottom - top),
        use_alpha=False,
    )
    # One of its own for each call: it keeps buffers, which threads must not share.
    cykooz_resizer.Resizer().resize(source, target, options)
    return np.frombuffer(target.get_buffer(), dtype=np.uint8).reshape(height, width, 3)


def _name_filter(interpolation: str) -> "FilterType":
    # Catmull-Rom is the cubic of Pillow, with a = -0.5.
    filters = {"bilinear": cykooz_resizer.FilterType.bilinear, "bicubic": cykooz_resizer.FilterType.catmull_rom}
    return filters[interpolation]


if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Geometry:
    """The resize and the crop before a photo is standardised.

    ``resize_to`` is the length in pixels of the shorter side, or without ``keep_aspect`` of both sides, before a
    centre crop of ``crop_to``. An offset of the crop that ends in half a pixel is rounded "down", as Transformers
    does, or to an "even" number, as torchvision does.
    """

    resize_to: int
    crop_to: int
    keep_aspect: bool
    interpolation: str
    crop_rounding: Literal["down", "even"] = "down"

    def resize(self, photo: Image.Image) -> np.ndarray:
        """Turn an RGB photo into uint8 pixels [crop_to, crop_to, 3]; where it is too small, black is put around it."""
        width, height, left, top = self.place(*photo.size)
        if left < 0 or top < 0:
            whole = Image.fromarray(resample(photo, (0, 0, *photo.size), width, height, self.interpolation))
            return np.asarray(whole.crop((left, top, left + self.crop_to, top + self.crop_to)))
        # The crop alone is computed.
        x_scale, y_scale = photo.width / width, photo.height / height
        box = (left * x_scale, top * y_scale, (left + self.crop_to) * x_scale, (top + self.crop_to) * y_scale)
        return resample(photo, _within(box, photo), self.crop_to, self.crop_to, self.interpolation)

    def apply(self, pixels: np.ndarray) -> "torch.Tensor":
        """`resize` for those who compute in torch: uint8 [height, width, 3] to a tensor [3, crop_to, crop_to]."""
        import torch

        resized = self.resize(Image.fromarray(pixels))
        return torch.from_numpy(resized.transpose(2, 0, 1).copy())

    def place(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Width and height to resize a photo to, then left and top edge of the crop, negative where it is smaller."""
        width, height = self._resized_size(width, height)
        return width, height, self._crop_offset(width), self._crop_offset(height)

    def _resized_size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height after the resize; the longer side is rounded down, as everywhere in the field."""
        if not self.keep_aspect:
            return self.resize_to, self.resize_to
        shorter = min(width, height)
        return self.resize_to * width // shorter, self.resize_to * height // shorter

    def _crop_offset(self, side: int) -> int:
        offset = (side - self.crop_to) / 2
        return int(offset) if self.crop_rounding == "down" else round(offset)


def _within(box: tuple[float, float, float, float], photo: Image.Image) -> tuple[float, float, float, float]:
    """The box, which rounding may have pushed out of the photo by a hair."""
    left, top, right, bottom = box
    return left, top, min(right, float(photo.width)), min(bottom, float(photo.height))
