"""JPEGs of the size of a shop's photos, for benchmarks that read none."""

import io

import numpy as np
from PIL import Image

SIZE = (400, 533)
GRAIN_LEVELS = 4.0


def make_jpegs(count: int) -> list[bytes]:
    """Soft colours under grain, each other ones; the same at every call."""
    return [_make_jpeg(np.random.default_rng(number)) for number in range(count)]


def _make_jpeg(random: np.random.Generator) -> bytes:
    soft = Image.fromarray(random.integers(0, 256, (16, 12, 3), dtype=np.uint8)).resize(SIZE, Image.Resampling.BICUBIC)
    grain = random.normal(0, GRAIN_LEVELS, (SIZE[1], SIZE[0], 1))
    content = io.BytesIO()
    Image.fromarray((np.asarray(soft) + grain).clip(0, 255).astype(np.uint8)).save(content, "JPEG", quality=85)
    return content.getvalue()
