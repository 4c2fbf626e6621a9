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
ZOOM_SIDE = 1200
"""Fills most screens, at a tenth of the bytes of a camera's image."""
GRID_MAX_PIXELS = 25_000_000
"""Maximum number of pixels. Decoding a PNG of this size takes 100 MB, which a server can afford once at a time."""
THUMBNAIL_SIDE = 120


def shrink_under_limits(settings: ImageSettings, side: int) -> Decoder[bytes]:
    """Return a decoder that makes JPEGs of at most ``side`` pixels per side.

    It has the limits of the ingest flow and a lower limit on pixels.
    """
    limits = DecodeLimits(min(GRID_MAX_PIXELS, settings.max_pixels), MIN_SIDE_PIXELS, side)
    return partial(shrink_image, limits=limits)


def shrink_image(content: bytes, limits: DecodeLimits) -> bytes | DecodeFailure:
    """Turn the bytes of an image into a JPEG of at most ``limits.target_side`` pixels per side."""
    decoded = decode_pil(content, limits)
    if not isinstance(decoded, DecodedPil):
        return decoded
    image = decoded.image.copy()
    image.thumbnail((limits.target_side, limits.target_side), Image.Resampling.BICUBIC)
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
