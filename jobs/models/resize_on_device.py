"""What `Geometry.resize` does, for photos whose pixels lie on a GPU."""

import torch
from torchvision.transforms.v2 import functional

from jobs.models.geometry import Geometry


def resize_on_device(photo: torch.Tensor, geometry: Geometry) -> torch.Tensor:
    """Turn uint8 pixels [3, height, width] into uint8 [3, crop_to, crop_to] on the same device.

    The antialiased filters are those of Pillow; the pixels differ from `Geometry.resize` by rounding.
    """
    height, width = photo.shape[-2:]
    width, height, left, top = geometry.place(width, height)
    interpolation = functional.InterpolationMode(geometry.interpolation)
    resized = functional.resize(photo, [height, width], interpolation, antialias=True)
    # Out of bounds, it is padded with black.
    cropped: torch.Tensor = functional.crop(resized, top, left, geometry.crop_to, geometry.crop_to)
    return cropped
