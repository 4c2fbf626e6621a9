"""Decode and resize JPEGs on a GPU. The decode pool decodes all other images on the CPU."""

import io
import logging
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torchcodec.decoders import decode_jpeg
from torchvision.transforms.v2 import functional

from jobs.errors import ConfigurationError, first_line
from jobs.images.decode import (
    DECODER_ERRORS,
    Decode,
    DecodeFailure,
    DecodeLimits,
    PreparedImage,
    UndecodableError,
    check_scans,
    check_size,
    read_orientation,
)
from jobs.images.geometry import Geometry
from jobs.models.device import Device, choose_device, use_own_stream

log = logging.getLogger(__name__)

GROUP_PIXELS = 64_000_000
"""Pixels decoded in one call. They take 200 MB of GPU memory, and twice that while an image is resized."""
END_OF_IMAGE = b"\xff\xd9"


def resize_on_device(image: torch.Tensor, geometry: Geometry) -> torch.Tensor:
    """Turn uint8 pixels [3, height, width] into uint8 [3, crop_to, crop_to] on the same device.

    Uses antialiased filters like Pillow's. Pixels differ from those of `Geometry.resize` only by rounding.
    """
    height, width = image.shape[-2:]
    width, height, left, top = geometry.place(width, height)
    interpolation = functional.InterpolationMode(geometry.interpolation)
    resized = functional.resize(image, [height, width], interpolation, antialias=True)
    # Where the crop exceeds the image, it is padded with black.
    cropped: torch.Tensor = functional.crop(resized, top, left, geometry.crop_to, geometry.crop_to)
    return cropped


@dataclass(frozen=True)
class Jpeg:
    """A JPEG that the GPU can decode, with its position in the batch and its size in pixels."""

    position: int
    content: bytes
    width: int
    height: int


@dataclass(frozen=True)
class GpuDecoder:
    """Prepare batches of images as `prepare_image` does. ``on_cpu`` prepares those that the GPU cannot decode."""

    device: Device
    limits: DecodeLimits
    geometries: tuple[Geometry, ...]
    on_cpu: Decode

    def decode(self, contents: Sequence[bytes]) -> list[PreparedImage | DecodeFailure]:
        """Prepare a batch and return the results in its order. Safe to call from several threads."""
        jpegs = [jpeg for position, content in enumerate(contents) if (jpeg := self._read_header(position, content))]
        prepared: dict[int, PreparedImage | DecodeFailure] = {}
        for group in cut_groups(jpegs, GROUP_PIXELS):
            prepared |= self._decode_group(group)
        rest = [position for position in range(len(contents)) if position not in prepared]
        if rest:
            prepared |= zip(rest, self.on_cpu([contents[position] for position in rest]), strict=True)
        return [prepared[position] for position in range(len(contents))]

    def _read_header(self, position: int, content: bytes) -> Jpeg | None:
        """Return the JPEG, or None unless it is complete, upright, in color or gray, and within the limits."""
        if not content.rstrip(b"\0").endswith(END_OF_IMAGE):
            return None
        # check_size applies our own limit. Pillow's limit raises an exception that is not in DECODER_ERRORS.
        Image.MAX_IMAGE_PIXELS = None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with Image.open(io.BytesIO(content), formats=["JPEG"]) as image:
                    check_size(*image.size, self.limits)
                    check_scans(content)
                    # TorchCodec applies the EXIF orientation on some devices only.
                    is_plain = image.mode in {"RGB", "L"} and read_orientation(image) == 1
                    return Jpeg(position, content, *image.size) if is_plain else None
        except (UndecodableError, *DECODER_ERRORS):
            return None

    def _decode_group(self, group: Sequence[Jpeg]) -> dict[int, PreparedImage]:
        """Decode a group. If the GPU fails, return nothing: the CPU then decodes the group and reports the reasons."""
        started = time.perf_counter()
        try:
            with use_own_stream(self.device):
                decoded = decode_jpeg([jpeg.content for jpeg in group], mode="RGB", device=self.device.torch_device)
                inputs = [self._resize(image) for image in decoded]
        except RuntimeError as error:
            log.warning("the GPU failed to decode %d JPEGs, using the CPU: %s", len(group), first_line(error))
            return {}
        seconds = (time.perf_counter() - started) / len(group)
        return {
            jpeg.position: PreparedImage(resized, jpeg.width, jpeg.height, seconds)
            for jpeg, resized in zip(group, inputs, strict=True)
        }

    def _resize(self, image: torch.Tensor) -> tuple[np.ndarray, ...]:
        resized = [resize_on_device(image, geometry) for geometry in self.geometries]
        return tuple(pixels.permute(1, 2, 0).contiguous().cpu().numpy() for pixels in resized)


def require_gpu(device: str, index: int) -> Device:
    """Return the GPU to decode on.

    Raises:
        ConfigurationError: there is no GPU, or the settings exclude it.
    """
    chosen = choose_device(device, "auto", index)
    if not chosen.is_cuda:
        raise ConfigurationError("CATALOG_JPEG_DECODER=gpu needs a GPU. Set it to cpu, or CATALOG_DEVICE to cuda")
    return chosen


def cut_groups(jpegs: Sequence[Jpeg], max_pixels: int) -> Iterator[Sequence[Jpeg]]:
    """Split a batch into groups of at most ``max_pixels``. A larger image gets a group of its own."""
    group: list[Jpeg] = []
    pixels = 0
    for jpeg in jpegs:
        if group and pixels + jpeg.width * jpeg.height > max_pixels:
            yield group
            group, pixels = [], 0
        group.append(jpeg)
        pixels += jpeg.width * jpeg.height
    if group:
        yield group
