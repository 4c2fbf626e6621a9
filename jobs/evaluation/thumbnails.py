"""Small pictures for pages that must hold everything themselves."""

import base64
import io

import numpy as np
from PIL import Image

THUMBNAIL_SIDE = 120


def make_thumbnail(pixels: np.ndarray) -> str:
    """Shrink RGB pixels, uint8 [height, width, 3], to at most 120 a side: a JPEG in base64."""
    image = Image.fromarray(pixels)
    image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=75)
    return base64.b64encode(buffer.getvalue()).decode()
