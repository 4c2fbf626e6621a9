"""Make small JPEGs of images for pages."""

import base64
import io
from functools import partial

import numpy as np
from PIL import Image

from jobs.images.decode import MIN_SIDE_PIXELS, DecodedPil, DecodeFailure, DecodeLimits, decode_pil
from jobs.images.decode_pool import Decoder
from jobs.settings import ImageSettings

GRID_SIDE = 320
"""Twice the displayed size, for high-resolution screens."""
GRID_MAX_PIXELS = 25_000_000
"""Maximum number of pixels. Decoding a PNG of this size takes 100 MB, which a server can afford once at a time."""
THUMBNAIL_SIDE = 120


def shrink_under_limits(settings: ImageSettings) -> Decoder[bytes]:
    """Return a decoder that makes small JPEGs, with the limits of the ingest flow and a lower limit on pixels."""
    limits = DecodeLimits(min(GRID_MAX_PIXELS, settings.max_pixels), MIN_SIDE_PIXELS, GRID_SIDE)
    return partial(shrink_image, limits=limits)


def shrink_image(content: bytes, limits: DecodeLimits) -> bytes | DecodeFailure:
    """Turn the bytes of an image into a small JPEG."""
    decoded = decode_pil(content, limits)
    if not isinstance(decoded, DecodedPil):
        return decoded
    image = decoded.image.copy()
    image.thumbnail((GRID_SIDE, GRID_SIDE), Image.Resampling.BICUBIC)
    return _encode_jpeg(image, quality=80)


def make_thumbnail(pixels: np.ndarray) -> str:
    """Shrink RGB pixels, uint8 [height, width, 3], to a JPEG of at most 120 pixels per side, encoded in base64."""
    image = Image.fromarray(pixels)
    image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    return base64.b64encode(_encode_jpeg(image, quality=75)).decode()


def _encode_jpeg(image: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()
