"""Stage 4: bytes to RGB pixels, for anything that a bucket may hold.

This module is imported by the decoding processes: it needs Pillow and numpy, and nothing that is slow to load.
"""

import io
import re
import struct
import sys
import time
import warnings
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, UnidentifiedImageError

from jobs.models.geometry import Geometry
from jobs.tagging.failures import Reason
from jobs.tagging.png_chunks import SIGNATURE, keep_picture
from jobs.tagging.to_rgb import choose_page, convert_to_rgb

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
DECODER_FAULTS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    EOFError,
    OverflowError,
    struct.error,
    zlib.error,
)
"""What Pillow's decoders raise on bytes that break their format's rules."""
MAX_SCANS = 100
"""Of a JPEG; encoders write up to some 30. Each one more costs a pass over the whole photo and hardly a byte."""
_SEGMENT = re.compile(rb"\xff[\x01-\xcf\xd9-\xfe]")
"""The start of a JPEG's segment or its end: no stuffed byte, no padding, no restart of a scan."""


@dataclass(frozen=True)
class DecodeLimits:
    """What is refused, and how far a photo may be shrunk while it is decoded.

    ``target_side`` is the length in pixels below which the shorter side of a shrunken photo must not fall;
    twice the model's input keeps the features equal to those of the whole photo.
    """

    max_pixels: int
    min_side_pixels: int
    target_side: int

    @classmethod
    def for_labelled_photo(cls, target_side: int) -> "DecodeLimits":
        """Nothing is refused: what has a label was decoded under the shop's limits when it was imported."""
        return cls(max_pixels=sys.maxsize, min_side_pixels=1, target_side=target_side)


@dataclass(frozen=True)
class DecodedImage:
    """RGB pixels, uint8 [height, width, 3]; ``width`` and ``height`` are those of the original, upright."""

    pixels: np.ndarray
    width: int
    height: int
    seconds: float


@dataclass(frozen=True)
class DecodedPhoto:
    """An upright RGB photo, perhaps shrunken; ``width`` and ``height`` are those of the original, upright."""

    photo: Image.Image
    width: int
    height: int
    seconds: float


@dataclass(frozen=True)
class PreparedImage:
    """A photo resized for models: uint8 pixels [side, side, 3] of each geometry that was asked for."""

    inputs: tuple[np.ndarray, ...]
    width: int
    height: int
    seconds: float


@dataclass(frozen=True)
class DecodeFault:
    """Why these bytes are no photo."""

    reason: Reason
    detail: str
    seconds: float


Decode = Callable[[Sequence[bytes]], Sequence[PreparedImage | DecodeFault]]
"""Prepares a batch, in its order."""


class RefusedError(Exception):
    """An image that breaks a limit."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def decode_image(content: bytes, limits: DecodeLimits) -> DecodedImage | DecodeFault:
    """Decode one image into pixels; every fault of the bytes is returned, none is raised."""
    photo = decode_photo(content, limits)
    if isinstance(photo, DecodeFault):
        return photo
    return DecodedImage(np.asarray(photo.photo), photo.width, photo.height, photo.seconds)


def prepare_image(content: bytes, limits: DecodeLimits, geometries: Sequence[Geometry]) -> PreparedImage | DecodeFault:
    """Decode one image and resize it for models; every fault of the bytes is returned, none is raised."""
    started = time.perf_counter()
    photo = decode_photo(content, limits)
    if isinstance(photo, DecodeFault):
        return photo
    inputs = tuple(geometry.resize(photo.photo) for geometry in geometries)
    return PreparedImage(inputs, photo.width, photo.height, time.perf_counter() - started)


def decode_photo(content: bytes, limits: DecodeLimits) -> DecodedPhoto | DecodeFault:
    """Decode one image, without a copy of its pixels; every fault of the bytes is returned, none is raised."""
    started = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            photo, width, height = _decode(content, limits)
        except RefusedError as refusal:
            return DecodeFault(refusal.reason, str(refusal), time.perf_counter() - started)
        except DECODER_FAULTS as error:
            return DecodeFault(_name_fault(error), _describe(error), time.perf_counter() - started)
    return DecodedPhoto(photo, width, height, time.perf_counter() - started)


def _decode(content: bytes, limits: DecodeLimits) -> tuple[Image.Image, int, int]:
    if not content:
        raise RefusedError(Reason.EMPTY, "0 bytes")
    # Our own limit is checked from the header; Pillow's would warn or raise by a number of its own.
    Image.MAX_IMAGE_PIXELS = None
    png_depth = None
    if content.startswith(SIGNATURE):
        content = keep_picture(content)
        # The header comes first, and the depth follows its width and height.
        png_depth = content[24] if len(content) > 24 else None
    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
        choose_page(image)
        width, height = image.size
        check_size(width, height, limits)
        if image.format in {"JPEG", "MPO"}:
            check_scans(content)
        # Pillow turns a TIFF upright by itself when it loads it, and swaps its sides as soon as it is opened.
        orientation = 1 if image.format == "TIFF" else read_orientation(image)
        image.draft(None, _shrunken_size(width, height, limits.target_side))
        rgb = convert_to_rgb(image, png_depth)
        # Other formats than JPEG cannot shrink while they decode; what leaves this process is small all the same.
        factor = min(rgb.size) // limits.target_side
        upright = _turn_upright(rgb.reduce(factor) if factor > 1 else rgb, orientation)
    if orientation >= 5:
        width, height = height, width
    return upright, width, height


def check_size(width: int, height: int, limits: DecodeLimits) -> None:
    """Raise RefusedError for a photo that is too large or too small."""
    if width * height > limits.max_pixels:
        raise RefusedError(Reason.TOO_MANY_PIXELS, f"{width} x {height} exceeds {limits.max_pixels} pixels")
    if min(width, height) < limits.min_side_pixels:
        raise RefusedError(Reason.TOO_SMALL, f"{width} x {height}: a side is under {limits.min_side_pixels} pixels")


def check_scans(jpeg: bytes) -> None:
    """Raise RefusedError for a JPEG whose scans make it slow to decode."""
    # Far quicker than walking its segments, and an upper bound.
    if jpeg.count(b"\xff\xda") <= MAX_SCANS:
        return
    scans, found = 0, _SEGMENT.search(jpeg, 2)
    while found and (marker := jpeg[found.end() - 1]) != 0xD9:
        scans += marker == 0xDA
        found = _SEGMENT.search(jpeg, found.end() + int.from_bytes(jpeg[found.end() : found.end() + 2]))
    if scans > MAX_SCANS:
        raise RefusedError(Reason.TOO_MANY_SCANS, f"{scans} scans exceed {MAX_SCANS}")


def _shrunken_size(width: int, height: int, target_side: int) -> tuple[int, int]:
    """The size to ask of a JPEG decoder, which halves as often as both sides stay at or above it."""
    scale = min(1.0, target_side / min(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def read_orientation(image: Image.Image) -> int:
    """EXIF orientation 1 to 8; broken EXIF counts as upright."""
    try:
        orientation = image.getexif().get(0x0112, 1)
    except DECODER_FAULTS:
        return 1
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1


TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _turn_upright(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(TRANSPOSE[orientation]) if orientation in TRANSPOSE else image


def _name_fault(error: Exception) -> Reason:
    if isinstance(error, UnidentifiedImageError):
        return Reason.UNSUPPORTED
    return Reason.TRUNCATED if "truncated" in str(error).lower() else Reason.CORRUPT


def _describe(error: Exception) -> str:
    # UnidentifiedImageError shows the address of a buffer, which would differ in every run.
    if isinstance(error, UnidentifiedImageError):
        return "no decoder knows these bytes"
    return f"{type(error).__name__}: {error}"[:500]
