"""Images with detail at every scale, like images. The color blocks of other tests have no stable perceptual hash."""

import io

import numpy as np
from PIL import Image


def make_scene(seed: int, size: tuple[int, int] = (300, 400)) -> Image.Image:
    """Make a scene of clouds of every size; smaller clouds are fainter. Each seed gives another scene."""
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
