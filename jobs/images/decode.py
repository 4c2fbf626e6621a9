"""Stage 4, decode: turn the bytes of an image into upright RGB pixels, and resize them for the models."""

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

from jobs.failures import DecodeReason
from jobs.images.geometry import Geometry

IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
DECODER_ERRORS = (
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
"""Exceptions that Pillow raises for malformed bytes."""

MAX_SCANS = 100
"""Maximum number of scans in a JPEG. Encoders write up to 30. A scan of a few bytes still costs a pass over the whole
image."""
_SEGMENT = re.compile(rb"\xff[\x01-\xcf\xd9-\xfe]")
"""The start of a JPEG segment, or the end of the image. It does not match stuffed bytes, padding or restart markers."""

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_IMAGE_CHUNKS = {b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS"}
"""PNG chunks that contain the image itself. They are kept even if their checksum is wrong: decoding then fails."""
PNG_OPTIONAL_CHUNKS = {b"eXIf"}
"""PNG chunks that are kept only if their checksum is correct. eXIf contains the orientation."""

SIXTEEN_BIT_MODES = {"I;16", "I;16B", "I;16L", "I;16N", "I", "F"}
INTEGER_RANGES = (255, 65_535, 2**32 - 1)
"""Candidates for the value of white in files with integer samples that do not state their maximum."""
TIFF_PHOTOMETRIC, TIFF_WHITE_IS_ZERO = 262, 0
TIFF_MAX_SAMPLE_VALUE = 281
MAX_COMPARED_PAGES = 32

EXIF_ORIENTATION = 0x0112
TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


MIN_SIDE_PIXELS = 8
"""Minimum length of a side. Smaller images are placeholders or tracking pixels."""


@dataclass(frozen=True)
class DecodeLimits:
    """Limits on the images to accept, and on how far to shrink them while decoding.

    ``target_side`` is the minimum length in pixels of the shorter side after shrinking. At twice the side of the
    model's input, the features equal those of the full-size image.
    """

    max_pixels: int
    min_side_pixels: int
    target_side: int

    @classmethod
    def for_labeled_image(cls, target_side: int) -> "DecodeLimits":
        """Accept every image: labeled images passed the limits when they were imported."""
        return cls(max_pixels=sys.maxsize, min_side_pixels=1, target_side=target_side)


@dataclass(frozen=True)
class DecodedImage:
    """RGB pixels, uint8 [height, width, 3]. ``width`` and ``height`` are those of the upright original."""

    pixels: np.ndarray
    width: int
    height: int
    seconds: float


@dataclass(frozen=True)
class DecodedPil:
    """An upright, possibly shrunk RGB image. ``width`` and ``height`` are those of the upright original."""

    image: Image.Image
    width: int
    height: int
    seconds: float


@dataclass(frozen=True)
class PreparedImage:
    """An image resized for the models: uint8 pixels [side, side, 3] for each requested geometry."""

    inputs: tuple[np.ndarray, ...]
    width: int
    height: int
    seconds: float


@dataclass(frozen=True)
class DecodeFailure:
    """The reason why bytes could not be decoded."""

    reason: DecodeReason
    detail: str
    seconds: float


Decode = Callable[[Sequence[bytes]], Sequence[PreparedImage | DecodeFailure]]
"""A function that prepares a batch and returns the results in its order."""


class UndecodableError(Exception):
    """The image is empty or violates a limit."""

    def __init__(self, reason: DecodeReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def prepare_image(
    content: bytes, limits: DecodeLimits, geometries: Sequence[Geometry]
) -> PreparedImage | DecodeFailure:
    """Decode an image and resize it for the models. Return a failure for malformed bytes; never raise."""
    started = time.perf_counter()
    decoded = decode_pil(content, limits)
    if isinstance(decoded, DecodeFailure):
        return decoded
    inputs = tuple(geometry.resize(decoded.image) for geometry in geometries)
    return PreparedImage(inputs, decoded.width, decoded.height, time.perf_counter() - started)


def decode_image(content: bytes, limits: DecodeLimits) -> DecodedImage | DecodeFailure:
    """Decode an image into pixels. Return a failure for malformed bytes; never raise."""
    decoded = decode_pil(content, limits)
    if isinstance(decoded, DecodeFailure):
        return decoded
    return DecodedImage(np.asarray(decoded.image), decoded.width, decoded.height, decoded.seconds)


def decode_pil(content: bytes, limits: DecodeLimits) -> DecodedPil | DecodeFailure:
    """Decode an image without copying its pixels. Return a failure for malformed bytes; never raise."""
    started = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image, width, height = _decode(content, limits)
        except UndecodableError as error:
            return DecodeFailure(error.reason, str(error), time.perf_counter() - started)
        except DECODER_ERRORS as error:
            return DecodeFailure(_name_reason(error), _describe(error), time.perf_counter() - started)
    return DecodedPil(image, width, height, time.perf_counter() - started)


def _decode(content: bytes, limits: DecodeLimits) -> tuple[Image.Image, int, int]:
    if not content:
        raise UndecodableError(DecodeReason.EMPTY, "0 bytes")
    # Disabled because check_size applies our own limit to the header. Pillow's limit is fixed and warns or raises.
    Image.MAX_IMAGE_PIXELS = None
    png_depth = None
    if content.startswith(PNG_SIGNATURE):
        content = keep_image_chunks(content)
        # The header is the first chunk: width, height, then the bit depth.
        png_depth = content[24] if len(content) > 24 else None
    with Image.open(io.BytesIO(content), formats=IMAGE_FORMATS) as image:
        select_page(image)
        width, height = image.size
        check_size(width, height, limits)
        if image.format in {"JPEG", "MPO"}:
            check_scans(content)
        # Pillow rotates a TIFF itself when it loads the pixels, and reports the upright size when it opens the file.
        orientation = 1 if image.format == "TIFF" else read_orientation(image)
        image.draft(None, _draft_size(width, height, limits.target_side))
        rgb = convert_to_rgb(image, png_depth)
        # Only JPEGs can shrink while decoding. Shrink the others here, so less data leaves this process.
        factor = min(rgb.size) // limits.target_side
        upright = _turn_upright(rgb.reduce(factor) if factor > 1 else rgb, orientation)
    if orientation >= 5:
        width, height = height, width
    return upright, width, height


def check_size(width: int, height: int, limits: DecodeLimits) -> None:
    """Raise UndecodableError if an image is too large or too small."""
    if width * height > limits.max_pixels:
        raise UndecodableError(DecodeReason.TOO_MANY_PIXELS, f"{width} x {height} exceeds {limits.max_pixels} pixels")
    if min(width, height) < limits.min_side_pixels:
        detail = f"{width} x {height}: a side is under {limits.min_side_pixels} pixels"
        raise UndecodableError(DecodeReason.TOO_SMALL, detail)


def check_scans(jpeg: bytes) -> None:
    """Raise UndecodableError if a JPEG has so many scans that it is slow to decode."""
    # Counting the marker bytes gives an upper bound and is much faster than walking the segments.
    if jpeg.count(b"\xff\xda") <= MAX_SCANS:
        return
    scans, found = 0, _SEGMENT.search(jpeg, 2)
    while found and (marker := jpeg[found.end() - 1]) != 0xD9:
        scans += marker == 0xDA
        found = _SEGMENT.search(jpeg, found.end() + int.from_bytes(jpeg[found.end() : found.end() + 2]))
    if scans > MAX_SCANS:
        raise UndecodableError(DecodeReason.TOO_MANY_SCANS, f"{scans} scans exceed {MAX_SCANS}")


def keep_image_chunks(png: bytes) -> bytes:
    """Remove all PNG chunks that the image does not need. A truncated file stays truncated."""
    parts, position = [PNG_SIGNATURE], len(PNG_SIGNATURE)
    while position + 8 <= len(png):
        (length,), name = struct.unpack_from(">I", png, position), png[position + 4 : position + 8]
        end = position + 12 + length
        if name in PNG_IMAGE_CHUNKS or (name in PNG_OPTIONAL_CHUNKS and _has_valid_checksum(png[position + 4 : end])):
            parts.append(png[position:end])
        position = end
    return b"".join(parts)


def _has_valid_checksum(chunk: bytes) -> bool:
    """Check the checksum of a PNG chunk, given its bytes from the name to the checksum."""
    return len(chunk) >= 8 and zlib.crc32(chunk[:-4]) == int.from_bytes(chunk[-4:])


def select_page(image: Image.Image) -> None:
    """Select the largest page of a TIFF, because the first may be a thumbnail."""
    if image.format != "TIFF" or getattr(image, "n_frames", 1) == 1:
        return
    sizes = []
    for page in range(min(image.n_frames, MAX_COMPARED_PAGES)):  # type: ignore[attr-defined]
        image.seek(page)
        sizes.append(image.width * image.height)
    image.seek(sizes.index(max(sizes)))


def read_orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8. Broken EXIF counts as upright (1)."""
    try:
        orientation = image.getexif().get(EXIF_ORIENTATION, 1)
    except DECODER_ERRORS:
        return 1
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1


def _draft_size(width: int, height: int, target_side: int) -> tuple[int, int]:
    """Return the size to pass to JPEG draft mode, which halves the image as long as no side falls below that size."""
    scale = min(1.0, target_side / min(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _turn_upright(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(TRANSPOSE[orientation]) if orientation in TRANSPOSE else image


def convert_to_rgb(image: Image.Image, png_depth: int | None) -> Image.Image:
    """Convert the current page to RGB. Put transparent areas on white, and scale deeper samples to 8 bits.

    ``png_depth`` is the bit depth of a PNG. Its transparent value is given in this depth.
    """
    image.load()
    if image.mode in SIXTEEN_BIT_MODES:
        return _convert_sixteen_bits(image)
    if png_depth is not None:
        image = _scale_transparent_value(image, png_depth)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        # Many programs set the fourth byte of each BMP pixel to 0 without meaning transparency.
        if image.format == "BMP" and rgba.getchannel("A").getextrema() == (0, 0):
            return rgba.convert("RGB")
        canvas = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(canvas, rgba).convert("RGB")
    return image.convert("RGB")


def _scale_transparent_value(image: Image.Image, depth: int) -> Image.Image:
    """Scale the transparent value to 8 bits, as Pillow does with the samples."""
    value = image.info.get("transparency")
    if depth == 8 or image.mode not in {"1", "L", "RGB"} or not isinstance(value, int | tuple):
        return image
    largest = 2**depth - 1
    scaled = tuple(one * 255 // largest for one in (value if isinstance(value, tuple) else (value,)))
    gray = image.convert("L") if image.mode == "1" else image
    gray.info["transparency"] = scaled if isinstance(value, tuple) else scaled[0]
    return gray


def _convert_sixteen_bits(image: Image.Image) -> Image.Image:
    """Scale 16-bit, 32-bit and float samples to 8 bits by the range that they use. Pillow would clip them at 255."""
    tags = getattr(image, "tag_v2", {})
    values: np.ndarray = np.asarray(image, dtype=np.float32)
    white = _find_white(image.mode, values, tags.get(TIFF_MAX_SAMPLE_VALUE))
    scaled = values * (255 / white)
    if tags.get(TIFF_PHOTOMETRIC) == TIFF_WHITE_IS_ZERO:
        scaled = 255 - scaled
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        scaled[values == transparent] = 255
    return Image.fromarray(np.clip(scaled + 0.5, 0, 255).astype(np.uint8)).convert("RGB")


def _find_white(mode: str, values: np.ndarray, stated: object) -> float:
    """Return the sample value of white: the one that the file states, or the maximum of the range that fits."""
    if isinstance(stated, tuple):
        stated = max(stated, default=None)
    if isinstance(stated, int | float) and stated > 0:
        return float(stated)
    if mode.startswith("I;16"):
        return 65_535
    highest = float(values.max(initial=0))
    if mode == "F" and highest <= 1:
        return 1
    return next((largest for largest in INTEGER_RANGES if highest <= largest), highest)


def _name_reason(error: Exception) -> DecodeReason:
    if isinstance(error, UnidentifiedImageError):
        return DecodeReason.UNSUPPORTED
    return DecodeReason.TRUNCATED if "truncated" in str(error).lower() else DecodeReason.CORRUPT


def _describe(error: Exception) -> str:
    # The message of UnidentifiedImageError contains a buffer address, which differs in every run.
    if isinstance(error, UnidentifiedImageError):
        return "no decoder recognizes these bytes"
    return f"{type(error).__name__}: {error}"[:500]
