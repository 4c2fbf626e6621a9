"""Resize and crop an image as the preprocessing of a model requires."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    import torch
    from cykooz_resizer import FilterType

try:
    import cykooz_resizer
except ImportError:  # There is no package for Linux on ARM.
    cykooz_resizer = None

Box = tuple[float, float, float, float]
"""Left, top, right and bottom edge, in pixels of the image."""

PILLOW_FILTERS: Mapping[str, Image.Resampling] = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}
"""The supported interpolations; both antialias."""


def resample(image: Image.Image, box: Box, width: int, height: int, interpolation: str) -> np.ndarray:
    """Resize a box of an RGB image to uint8 pixels [height, width, 3]. The filter also uses pixels outside the box."""
    if cykooz_resizer is None:
        return np.asarray(image.resize((width, height), PILLOW_FILTERS[interpolation], box))
    # Pass bytes rather than Pillow's own memory, whose layout is not documented.
    source = cykooz_resizer.ImageData(*image.size, cykooz_resizer.PixelType.U8x3, image.tobytes())
    target = cykooz_resizer.ImageData(width, height, cykooz_resizer.PixelType.U8x3)
    left, top, right, bottom = box
    options = cykooz_resizer.ResizeOptions(
        resize_alg=cykooz_resizer.ResizeAlg.convolution(_name_filter(interpolation)),
        crop_box=cykooz_resizer.CropBox(left, top, right - left, bottom - top),
        use_alpha=False,
    )
    # A new resizer for each call: it has buffers that threads must not share.
    cykooz_resizer.Resizer().resize(source, target, options)
    return np.frombuffer(target.get_buffer(), dtype=np.uint8).reshape(height, width, 3)


def _name_filter(interpolation: str) -> "FilterType":
    # Catmull-Rom is the bicubic filter of Pillow (a = -0.5).
    filters = {"bilinear": cykooz_resizer.FilterType.bilinear, "bicubic": cykooz_resizer.FilterType.catmull_rom}
    return filters[interpolation]


@dataclass(frozen=True)
class Geometry:
    """The resize and center crop of a model's preprocessing.

    ``resize_to`` is the length in pixels of the shorter side, or of both sides without ``keep_aspect``. ``crop_to`` is
    the side of the crop. ``crop_rounding`` says how half-pixel offsets are rounded: "down" as in Transformers, or to
    an "even" number as in torchvision.
    """

    resize_to: int
    crop_to: int
    keep_aspect: bool
    interpolation: str
    crop_rounding: Literal["down", "even"] = "down"

    def resize(self, image: Image.Image) -> np.ndarray:
        """Resize and crop an RGB image to uint8 pixels [crop_to, crop_to, 3]. Pad small images with black."""
        width, height, left, top = self.place(*image.size)
        if left < 0 or top < 0:
            whole = Image.fromarray(resample(image, (0, 0, *image.size), width, height, self.interpolation))
            return np.asarray(whole.crop((left, top, left + self.crop_to, top + self.crop_to)))
        # Compute only the pixels of the crop.
        x_scale, y_scale = image.width / width, image.height / height
        box = (left * x_scale, top * y_scale, (left + self.crop_to) * x_scale, (top + self.crop_to) * y_scale)
        return resample(image, _clip(box, image), self.crop_to, self.crop_to, self.interpolation)

    def apply(self, pixels: np.ndarray) -> "torch.Tensor":
        """Resize and crop uint8 pixels [height, width, 3] to a uint8 tensor [3, crop_to, crop_to]."""
        import torch

        resized = self.resize(Image.fromarray(pixels))
        return torch.from_numpy(resized.transpose(2, 0, 1).copy())

    def place(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Return the width and height after the resize, and the left and top of the crop (negative if padded)."""
        width, height = self._resized_size(width, height)
        return width, height, self._crop_offset(width), self._crop_offset(height)

    def _resized_size(self, width: int, height: int) -> tuple[int, int]:
        """Return the width and height after the resize. Round the longer side down, as all common libraries do."""
        if not self.keep_aspect:
            return self.resize_to, self.resize_to
        shorter = min(width, height)
        return self.resize_to * width // shorter, self.resize_to * height // shorter

    def _crop_offset(self, side: int) -> int:
        offset = (side - self.crop_to) / 2
        return int(offset) if self.crop_rounding == "down" else round(offset)


def _clip(box: Box, image: Image.Image) -> Box:
    """Clip a box that extends slightly beyond the image because of rounding."""
    left, top, right, bottom = box
    return left, top, min(right, float(image.width)), min(bottom, float(image.height))
