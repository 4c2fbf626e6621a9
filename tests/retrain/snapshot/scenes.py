"""Pictures with the detail of photos, coarse and fine; blocks of colour, which other tests use, have no stable hash."""

import io

import numpy as np
from PIL import Image


def make_scene(seed: int, size: tuple[int, int] = (300, 400)) -> Image.Image:
    """A scene that no other seed gives: clouds of every size, the finer the fainter."""
    rng = np.random.default_rng(seed)
    pixels = np.zeros((size[1], size[0], 3))
    for octave in range(2, 7):
        clouds = Image.fromarray(rng.integers(0, 256, (2**octave, 2**octave, 3), dtype=np.uint8))
        pixels += np.asarray(clouds.resize(size, Image.Resampling.BICUBIC)) / 2**octave
    return Image.fromarray(np.uint8(pixels / pixels.max() * 255))


def encode_jpeg(image: Image.Image, quality: int = 90) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()
