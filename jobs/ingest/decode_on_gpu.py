"""Decode and resize JPEGs on a GPU; other photos, and those that the GPU refuses, go to the decoding processes."""

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
    DECODER_FAULTS,
    Decode,
    DecodeFault,
    DecodeLimits,
    PreparedImage,
    UndecodableError,
    check_scans,
    check_size,
    read_orientation,
)
from jobs.images.geometry import Geometry
from jobs.models.device import Device, choose_device, use_own_stream


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


log = logging.getLogger(__name__)

GROUP_PIXELS = 64_000_000
"""Of the photos that are decoded at a time: some 200 MB of a GPU's memory, and twice that while one is resized."""
END_OF_IMAGE = b"\xff\xd9"


@dataclass(frozen=True)
class Jpeg:
    """A JPEG that a GPU may decode, by its place in a batch; sides in pixels."""

    position: int
    content: bytes
    width: int
    height: int


@dataclass(frozen=True)
class GpuDecoder:
    """Prepares batches of photos as `prepare_image` does; ``on_cpu`` prepares those that are not for the GPU."""

    device: Device
    limits: DecodeLimits
    geometries: tuple[Geometry, ...]
    on_cpu: Decode

    def decode(self, contents: Sequence[bytes]) -> list[PreparedImage | DecodeFault]:
        """Prepare a batch in its order; may be called from several threads."""
        jpegs = [jpeg for position, content in enumerate(contents) if (jpeg := self._read_header(position, content))]
        prepared: dict[int, PreparedImage | DecodeFault] = {}
        for group in cut_groups(jpegs, GROUP_PIXELS):
            prepared |= self._decode_group(group)
        left = [position for position in range(len(contents)) if position not in prepared]
        if left:
            prepared |= zip(left, self.on_cpu([contents[position] for position in left]), strict=True)
        return [prepared[position] for position in range(len(contents))]

    def _read_header(self, position: int, content: bytes) -> Jpeg | None:
        """None for what is no whole JPEG in colours or grey, has to be turned upright, or breaks a limit."""
        if not content.rstrip(b"\0").endswith(END_OF_IMAGE):
            return None
        # Our own limit decides, as for the decoding processes: Pillow's would raise what is no fault of a decoder.
        Image.MAX_IMAGE_PIXELS = None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with Image.open(io.BytesIO(content), formats=["JPEG"]) as image:
                    check_size(*image.size, self.limits)
                    check_scans(content)
                    # Whether TorchCodec turns photos by itself differs by device.
                    is_plain = image.mode in {"RGB", "L"} and read_orientation(image) == 1
                    return Jpeg(position, content, *image.size) if is_plain else None
        except (UndecodableError, *DECODER_FAULTS):
            return None

    def _decode_group(self, group: Sequence[Jpeg]) -> dict[int, PreparedImage]:
        """Nothing where the GPU refuses one of them or has no memory left: the processes find out which and why."""
        started = time.perf_counter()
        try:
            with use_own_stream(self.device):
                photos = decode_jpeg([jpeg.content for jpeg in group], mode="RGB", device=self.device.torch_device)
                inputs = [self._resize(photo) for photo in photos]
        except RuntimeError as error:
            log.warning("the GPU did not decode %d JPEGs, processes do: %s", len(group), first_line(error))
            return {}
        seconds = (time.perf_counter() - started) / len(group)
        return {
            jpeg.position: PreparedImage(photo, jpeg.width, jpeg.height, seconds)
            for jpeg, photo in zip(group, inputs, strict=True)
        }

    def _resize(self, photo: torch.Tensor) -> tuple[np.ndarray, ...]:
        resized = [resize_on_device(photo, geometry) for geometry in self.geometries]
        return tuple(pixels.permute(1, 2, 0).contiguous().cpu().numpy() for pixels in resized)


def require_gpu(device: str, index: int) -> Device:
    """The GPU that decodes.

    Raises:
        ConfigurationError: there is none, or the settings say that it is not to be used.
    """
    chosen = choose_device(device, "auto", index)
    if not chosen.is_cuda:
        raise ConfigurationError("CATALOG_JPEG_DECODER=gpu needs a GPU: set it to cpu, or CATALOG_DEVICE to cuda")
    return chosen


def cut_groups(jpegs: Sequence[Jpeg], most_pixels: int) -> Iterator[Sequence[Jpeg]]:
    """Cut a batch so that the photos of a group have so many pixels at most; a larger one is alone."""
    group: list[Jpeg] = []
    pixels = 0
    for jpeg in jpegs:
        if group and pixels + jpeg.width * jpeg.height > most_pixels:
            yield group
            group, pixels = [], 0
        group.append(jpeg)
        pixels += jpeg.width * jpeg.height
    if group:
        yield group
