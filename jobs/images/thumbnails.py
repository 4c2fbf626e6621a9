"""Small JPEGs of photos, for pages."""

import base64
import io
from functools import partial
from io import BytesIO

import numpy as np
from PIL import Image

from jobs.images.decode import DecodedPhoto, DecodeFault, DecodeLimits, decode_photo
from jobs.images.decode_pool import Decoder
from jobs.settings import Settings

SIDE_PIXELS = 320
"""Twice what a grid shows, for dense screens."""
MAX_PIXELS = 25_000_000
"""A PNG of so many takes 100 MB while it is decoded, which a server bears for one photo, and no more."""


def shrink_under_limits(settings: Settings) -> Decoder[bytes]:
    """What makes a photo a small JPEG, under the limits of the ingest and a tighter one on pixels."""
    limits = DecodeLimits(min(MAX_PIXELS, settings.images.max_pixels), settings.images.min_side_pixels, SIDE_PIXELS)
    return partial(shrink_photo, limits=limits)


def shrink_photo(content: bytes, limits: DecodeLimits) -> bytes | DecodeFault:
    """Turn the bytes of a photo into a small JPEG."""
    decoded = decode_photo(content, limits)
    if not isinstance(decoded, DecodedPhoto):
        return decoded
    photo = decoded.photo.copy()
    photo.thumbnail((SIDE_PIXELS, SIDE_PIXELS), Image.Resampling.BICUBIC)
    buffer = BytesIO()
    photo.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


THUMBNAIL_SIDE = 120


def make_thumbnail(pixels: np.ndarray) -> str:
    """Shrink RGB pixels, uint8 [height, width, 3], to at most 120 a side: a JPEG in base64."""
    image = Image.fromarray(pixels)
    image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=75)
    return base64.b64encode(buffer.getvalue()).decode()
