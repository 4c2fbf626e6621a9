"""A photo made small for pages, by a process that is killed when it takes too long."""

from functools import partial
from io import BytesIO

from PIL import Image

from jobs.settings import Settings
from jobs.tagging.decode import DecodedPhoto, DecodeFault, DecodeLimits, decode_photo
from jobs.tagging.decode_process import Decoder

SIDE_PIXELS = 320
"""Twice what a grid shows, for dense screens."""
MAX_PIXELS = 25_000_000
"""A PNG of so many takes 100 MB while it is decoded, which a server bears for one photo, and no more."""


def shrink_under_limits(settings: Settings) -> Decoder[bytes]:
    """What makes a photo a small JPEG, under the limits of the ingest and a tighter one on pixels."""
    limits = DecodeLimits(min(MAX_PIXELS, settings.max_pixels), settings.min_side_pixels, SIDE_PIXELS)
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
