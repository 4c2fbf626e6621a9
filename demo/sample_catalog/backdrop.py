"""What lies behind a garment: a muted colour, flat, shaded or textured."""

import math
from random import Random

import numpy as np
from PIL import Image

from demo.sample_catalog.canvas import Pixels
from demo.sample_catalog.fabric import Colour, Fabric, Pattern, measure_contrast
from demo.sample_catalog.placement import Size

BACKDROP_COLOURS: tuple[Colour, ...] = (
    (244, 243, 240),
    (226, 226, 228),
    (198, 204, 210),
    (232, 222, 206),
    (206, 222, 216),
    (220, 210, 226),
    (188, 206, 226),
    (232, 208, 204),
    (176, 168, 156),
    (150, 160, 168),
    (118, 126, 130),
    (84, 88, 96),
    (52, 54, 58),
    (150, 118, 88),
)
_CLEAR_CONTRAST = 110.0


def choose_backdrop_colour(fabric: Fabric, rng: Random) -> Colour:
    """A colour against which the whole fabric stands out; the clearest one if none does well."""
    shown = [fabric.colour] if fabric.pattern is Pattern.PLAIN else [fabric.colour, fabric.second]

    def measure_clearness(backdrop: Colour) -> float:
        return min(measure_contrast(backdrop, colour) for colour in shown)

    clear = [colour for colour in BACKDROP_COLOURS if measure_clearness(colour) > _CLEAR_CONTRAST]
    return rng.choice(clear) if clear else max(BACKDROP_COLOURS, key=measure_clearness)


def paint_backdrop(colour: Colour, size: Size, rng: Random) -> Pixels:
    """Shape (3, height, width), around 0 to 255: textures may leave that range a little."""
    shade = rng.choice((_shade_evenly, _shade_evenly, _shade_floor, _shade_blotches, _shade_planks, _shade_weave))
    return np.array(colour, np.float32)[:, None, None] * shade(size, rng)


def spread_noise(size: Size, columns: int, rows: int, rng: Random) -> Pixels:
    """Shape (height, width), about -1 to 1: random values on a coarse grid, smoothly enlarged."""
    values = np.random.default_rng(rng.getrandbits(64)).uniform(-1, 1, (rows, columns)).astype(np.float32)
    return np.asarray(Image.fromarray(values).resize(size, Image.Resampling.BICUBIC))


def _shade_evenly(size: Size, rng: Random) -> Pixels:
    return np.ones((size[1], size[0]), np.float32)


def _shade_floor(size: Size, rng: Random) -> Pixels:
    """A wall that turns into a darker floor, which brightens towards the camera."""
    horizon, depth = rng.uniform(0.55, 0.8), rng.uniform(0.06, 0.14)
    below = np.clip(np.linspace(-horizon, 1 - horizon, size[1], dtype=np.float32), 0, 1)
    shade = 1 - depth * np.clip(below * 12, 0, 1) + 0.08 * below
    return np.repeat(shade[:, None], size[0], axis=1)


def _shade_blotches(size: Size, rng: Random) -> Pixels:
    shade: Pixels = 1 + rng.uniform(0.03, 0.07) * spread_noise(size, 9, 9, rng)
    return shade


def _shade_planks(size: Size, rng: Random) -> Pixels:
    """Boards with dark grooves between them, lying or upright."""
    if rng.random() < 0.5:
        return _shade_planks_across(size, rng)
    return _shade_planks_across((size[1], size[0]), rng).T


def _shade_planks_across(size: Size, rng: Random) -> Pixels:
    count = rng.randint(4, 8)
    position = np.linspace(0, count, size[1], endpoint=False, dtype=np.float32)
    tones = np.array([rng.uniform(0.92, 1.04) for _ in range(count)], np.float32)
    to_groove_pixels = np.minimum(position % 1, 1 - position % 1) * (size[1] / count)
    board = tones[position.astype(int)] * np.clip(to_groove_pixels / 1.5, 0.75, 1)
    shade: Pixels = board[:, None] * (1 + 0.03 * spread_noise(size, 4, 60, rng))
    return shade


def _shade_weave(size: Size, rng: Random) -> Pixels:
    pitch_pixels, depth = rng.uniform(3.5, 6), rng.uniform(0.015, 0.03)
    warp, weft = (np.sin(np.arange(length, dtype=np.float32) * (2 * math.pi / pitch_pixels)) for length in size)
    shade: Pixels = 1 + depth * (warp[None] + weft[:, None])
    return shade
