"""Stage 4, decode: turn the bytes of a photo into upright RGB pixels, under limits, and resize them for the models."""

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

from jobs.failures import Reason
from jobs.images.geometry import Geometry

SIGNATURE = b"\x89PNG\r\n\x1a\n"
PICTURE_CHUNKS = {b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS"}
"""Kept as they are: if they are wrong, the picture is."""
KEPT_IF_WHOLE = {b"eXIf"}
"""The orientation."""


def keep_picture(png: bytes) -> bytes:
    """Leave out all chunks that are not the picture; what is cut off stays cut off."""
    parts, position = [SIGNATURE], len(SIGNATURE)
    while position + 8 <= len(png):
        (length,), name = struct.unpack_from(">I", png, position), png[position + 4 : position + 8]
        end = position + 12 + length
        if name in PICTURE_CHUNKS or (name in KEPT_IF_WHOLE and _is_whole(png[position + 4 : end])):
            parts.append(png[position:end])
        position = end
    return b"".join(parts)


def _is_whole(chunk: bytes) -> bool:
    """Whether a chunk from its name to its checksum has the right one."""
    return len(chunk) >= 8 and zlib.crc32(chunk[:-4]) == int.from_bytes(chunk[-4:])


SIXTEEN_BIT_MODES = {"I;16", "I;16B", "I;16L", "I;16N", "I", "F"}
RANGES = (255, 65_535, 2**32 - 1)
"""Of integers whose file does not tell their largest."""
PHOTOMETRIC, WHITE_IS_ZERO = 262, 0
LARGEST_VALUE = 281
PAGES_COMPARED = 32


def choose_page(image: Image.Image) -> None:
    """Turn to the largest page of a TIFF, of which the first may be its thumbnail."""
    if image.format != "TIFF" or getattr(image, "n_frames", 1) == 1:
        return
    sizes = []
    for page in range(min(image.n_frames, PAGES_COMPARED)):  # type: ignore[attr-defined]
        image.seek(page)
        sizes.append(image.width * image.height)
    image.seek(sizes.index(max(sizes)))


def convert_to_rgb(image: Image.Image, png_depth: int | None) -> Image.Image:
    """The page that is shown: transparent areas over white, more bits scaled to 8.

    ``png_depth`` is the number of bits of a sample of a PNG, in which the value that is transparent is told.
    """
    image.load()
    if image.mode in SIXTEEN_BIT_MODES:
        return _from_sixteen_bits(image)
    if png_depth is not None:
        image = _scale_transparent_value(image, png_depth)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        # Many programs leave the fourth byte of a BMP at 0 and mean nothing by it.
        if image.format == "BMP" and rgba.getchannel("A").getextrema() == (0, 0):
            return rgba.convert("RGB")
        canvas = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(canvas, rgba).convert("RGB")
    return image.convert("RGB")


def _scale_transparent_value(image: Image.Image, depth: int) -> Image.Image:
    """Tell the transparent value in the eight bits to which Pillow has scaled the samples."""
    value = image.info.get("transparency")
    if depth == 8 or image.mode not in {"1", "L", "RGB"} or not isinstance(value, int | tuple):
        return image
    largest = 2**depth - 1
    scaled = tuple(one * 255 // largest for one in (value if isinstance(value, tuple) else (value,)))
    grey = image.convert("L") if image.mode == "1" else image
    grey.info["transparency"] = scaled if isinstance(value, tuple) else scaled[0]
    return grey


def _from_sixteen_bits(image: Image.Image) -> Image.Image:
    """Pillow clips these modes at 255 when it converts them, so they are scaled here, by the range that is in use."""
    tags = getattr(image, "tag_v2", {})
    values: np.ndarray = np.asarray(image, dtype=np.float32)
    largest = _find_largest(image.mode, values, tags.get(LARGEST_VALUE))
    scaled = values * (255 / largest)
    if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:
        scaled = 255 - scaled
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        scaled[values == transparent] = 255
    return Image.fromarray(np.clip(scaled + 0.5, 0, 255).astype(np.uint8)).convert("RGB")


def _find_largest(mode: str, values: np.ndarray, told: object) -> float:
    """The value that is white: as the file tells, or by the range of its type."""
    if isinstance(told, tuple):
        told = max(told, default=None)
    if isinstance(told, int | float) and told > 0:
        return float(told)
    if mode.startswith("I;16"):
        return 65_535
    highest = float(values.max(initial=0))
    if mode == "F" and highest <= 1:
        return 1
    return next((largest for largest in RANGES if highest <= largest), highest)


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


class UndecodableError(Exception):
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
        except UndecodableError as refusal:
            return DecodeFault(refusal.reason, str(refusal), time.perf_counter() - started)
        except DECODER_FAULTS as error:
            return DecodeFault(_name_fault(error), _describe(error), time.perf_counter() - started)
    return DecodedPhoto(photo, width, height, time.perf_counter() - started)


def _decode(content: bytes, limits: DecodeLimits) -> tuple[Image.Image, int, int]:
    if not content:
        raise UndecodableError(Reason.EMPTY, "0 bytes")
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
    """Raise UndecodableError for a photo that is too large or too small."""
    if width * height > limits.max_pixels:
        raise UndecodableError(Reason.TOO_MANY_PIXELS, f"{width} x {height} exceeds {limits.max_pixels} pixels")
    if min(width, height) < limits.min_side_pixels:
        raise UndecodableError(Reason.TOO_SMALL, f"{width} x {height}: a side is under {limits.min_side_pixels} pixels")


def check_scans(jpeg: bytes) -> None:
    """Raise UndecodableError for a JPEG whose scans make it slow to decode."""
    # Far quicker than walking its segments, and an upper bound.
    if jpeg.count(b"\xff\xda") <= MAX_SCANS:
        return
    scans, found = 0, _SEGMENT.search(jpeg, 2)
    while found and (marker := jpeg[found.end() - 1]) != 0xD9:
        scans += marker == 0xDA
        found = _SEGMENT.search(jpeg, found.end() + int.from_bytes(jpeg[found.end() : found.end() + 2]))
    if scans > MAX_SCANS:
        raise UndecodableError(Reason.TOO_MANY_SCANS, f"{scans} scans exceed {MAX_SCANS}")


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
