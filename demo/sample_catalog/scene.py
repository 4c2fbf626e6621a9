"""Render an image of a garment: pose, backdrop, shadow, light, grain."""

import math
from random import Random

import numpy as np
from PIL import Image, ImageFilter

from demo.sample_catalog.canvas import Cutout, Pixels, Placement, Pose, Size, paint_garment, to_shares
from demo.sample_catalog.fabric import Color, Fabric, Pattern, measure_contrast
from demo.sample_catalog.marks import Garment, collect_points

BACKDROP_COLORS: tuple[Color, ...] = (
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
_DRAWN_SIDE_PIXELS = 480
"""Larger images are upscaled from this size: garments have no finer detail, and drawing time grows with pixels."""
_FRAME_RATIOS = (2 / 3, 3 / 4, 4 / 5, 1.0, 5 / 4, 4 / 3, 3 / 2)
"""Width over height."""
_SHADOW_REDUCTION = 4


def render_image(garment: Garment, fabric: Fabric, longest_side: int, rng: Random) -> Image.Image:
    """Return an RGB image whose longer side has ``longest_side`` pixels."""
    ratio = _choose_frame_ratio(garment, rng)
    drawn = _measure_frame(ratio, min(longest_side, _DRAWN_SIDE_PIXELS))
    cutout = _pose_garment(garment, fabric, drawn, rng)
    scene = paint_backdrop(choose_backdrop_color(fabric, rng), drawn, rng) * _cast_shadow(cutout, rng)
    scene += (_shade_cloth(cutout, rng) - scene) * cutout.coverage
    image = _to_image(scene * _make_light(drawn, rng) + _make_grain(drawn, rng), "RGB")
    return image.resize(_measure_frame(ratio, longest_side), Image.Resampling.BICUBIC)


def render_cutout(garment: Garment, fabric: Fabric, longest_side: int, rng: Random) -> Image.Image:
    """Return only the garment, as an RGBA image. The transparent pixels around it are black."""
    cutout = _pose_garment(garment, fabric, _measure_frame(_choose_frame_ratio(garment, rng), longest_side), rng)
    cloth = _shade_cloth(cutout, rng) * (cutout.coverage > 0)
    return _to_image(np.concatenate([cloth, cutout.coverage[None] * 255]), "RGBA")


def _choose_frame_ratio(garment: Garment, rng: Random) -> float:
    """Choose randomly among the three frame ratios that the garment fills best."""
    width, height = np.ptp(collect_points(garment.marks), axis=0)
    return rng.choice(sorted(_FRAME_RATIOS, key=lambda ratio: abs(math.log(ratio * height / width)))[:3])


def _measure_frame(ratio: float, longest_side: int) -> Size:
    shorter_side = round(longest_side * min(ratio, 1 / ratio))
    return (shorter_side, longest_side) if ratio < 1 else (longest_side, shorter_side)


def _pose_garment(garment: Garment, fabric: Fabric, frame: Size, rng: Random) -> Cutout:
    pose = Pose(
        degrees=rng.uniform(-15, 15),
        is_mirrored=rng.random() < 0.5,
        share=rng.uniform(0.8, 0.94),
        position=(rng.uniform(0.35, 0.65), rng.uniform(0.35, 0.65)),
    )
    return paint_garment(garment, fabric, Placement.fit(garment, frame, pose), frame)


def _shade_cloth(cutout: Cutout, rng: Random) -> Pixels:
    """Apply form and soft folds. Folds also brighten the cloth slightly, so that they are visible on black."""
    folds = make_noise(cutout.size, rng.randint(5, 8), rng.randint(3, 5), rng)
    shaded: Pixels = cutout.color * (0.74 + 0.26 * cutout.form + 0.06 * folds)
    shaded += 8 * np.maximum(folds, 0)
    return shaded


def _cast_shadow(cutout: Cutout, rng: Random) -> Pixels:
    """Return a soft drop shadow: the share of light that reaches the backdrop, shape (height, width)."""
    small = Image.fromarray((cutout.coverage * 255).astype(np.uint8)).reduce(_SHADOW_REDUCTION)
    side = max(small.size)
    soft = small.filter(ImageFilter.GaussianBlur(side * rng.uniform(0.012, 0.04)))
    reach, direction = side * rng.uniform(0.01, 0.035), rng.uniform(-1.2, 1.2)
    shift = (1, 0, -reach * math.sin(direction), 0, 1, -reach * math.cos(direction))
    shadow = soft.transform(soft.size, Image.Transform.AFFINE, shift, Image.Resampling.BILINEAR)
    light: Pixels = 1 - rng.uniform(0.25, 0.5) * to_shares(shadow.resize(cutout.size, Image.Resampling.BILINEAR))
    return light


def _make_light(frame: Size, rng: Random) -> Pixels:
    """Return the light: exposure, color temperature, side gradient and darker corners, shape (3, height, width)."""
    x, y = (np.linspace(-1, 1, length, dtype=np.float32) for length in frame)
    direction, strength, vignette = rng.uniform(0, 2 * math.pi), rng.uniform(0, 0.12), rng.uniform(0, 0.1)
    across = 1 + strength * math.cos(direction) * x - vignette * x * x
    down = strength * math.sin(direction) * y - vignette * y * y
    exposure, warmth = rng.uniform(0.88, 1.06), rng.uniform(-0.035, 0.035)
    tint = exposure * np.array([1 + warmth, 1, 1 - warmth], np.float32)
    light: Pixels = tint[:, None, None] * (across[None] + down[:, None])
    return light


def _make_grain(frame: Size, rng: Random) -> Pixels:
    """Return sensor noise, shape (height, width), of up to 4 of 255."""
    grain = np.random.default_rng(rng.getrandbits(64)).integers(-3, 4, frame[::-1], dtype=np.int8)
    return grain * np.float32(rng.uniform(0.2, 1.4))


def _to_image(bands: Pixels, mode: str) -> Image.Image:
    return Image.merge(mode, [Image.fromarray(band) for band in np.clip(bands, 0, 255).astype(np.uint8)])


def choose_backdrop_color(fabric: Fabric, rng: Random) -> Color:
    """Choose a color that contrasts clearly with the fabric, or the one with the highest contrast if none does."""
    shown = [fabric.color] if fabric.pattern is Pattern.PLAIN else [fabric.color, fabric.second]

    def measure_clarity(backdrop: Color) -> float:
        return min(measure_contrast(backdrop, color) for color in shown)

    clear = [color for color in BACKDROP_COLORS if measure_clarity(color) > _CLEAR_CONTRAST]
    return rng.choice(clear) if clear else max(BACKDROP_COLORS, key=measure_clarity)


def paint_backdrop(color: Color, size: Size, rng: Random) -> Pixels:
    """Return pixels of shape (3, height, width) from about 0 to 255. Textures may slightly exceed that range."""
    shade = rng.choice((_shade_evenly, _shade_evenly, _shade_floor, _shade_blotches, _shade_planks, _shade_weave))
    return np.array(color, np.float32)[:, None, None] * shade(size, rng)


def make_noise(size: Size, columns: int, rows: int, rng: Random) -> Pixels:
    """Return noise of shape (height, width) from about -1 to 1: random values on a coarse grid, smoothly enlarged."""
    values = np.random.default_rng(rng.getrandbits(64)).uniform(-1, 1, (rows, columns)).astype(np.float32)
    return np.asarray(Image.fromarray(values).resize(size, Image.Resampling.BICUBIC))


def _shade_evenly(size: Size, rng: Random) -> Pixels:
    return np.ones((size[1], size[0]), np.float32)


def _shade_floor(size: Size, rng: Random) -> Pixels:
    """Return a wall above a darker floor that brightens toward the camera."""
    horizon, depth = rng.uniform(0.55, 0.8), rng.uniform(0.06, 0.14)
    below = np.clip(np.linspace(-horizon, 1 - horizon, size[1], dtype=np.float32), 0, 1)
    shade = 1 - depth * np.clip(below * 12, 0, 1) + 0.08 * below
    return np.repeat(shade[:, None], size[0], axis=1)


def _shade_blotches(size: Size, rng: Random) -> Pixels:
    shade: Pixels = 1 + rng.uniform(0.03, 0.07) * make_noise(size, 9, 9, rng)
    return shade


def _shade_planks(size: Size, rng: Random) -> Pixels:
    """Return horizontal or vertical boards with dark grooves between them."""
    if rng.random() < 0.5:
        return _shade_planks_across(size, rng)
    return _shade_planks_across((size[1], size[0]), rng).T


def _shade_planks_across(size: Size, rng: Random) -> Pixels:
    count = rng.randint(4, 8)
    position = np.linspace(0, count, size[1], endpoint=False, dtype=np.float32)
    tones = np.array([rng.uniform(0.92, 1.04) for _ in range(count)], np.float32)
    to_groove_pixels = np.minimum(position % 1, 1 - position % 1) * (size[1] / count)
    board = tones[position.astype(int)] * np.clip(to_groove_pixels / 1.5, 0.75, 1)
    shade: Pixels = board[:, None] * (1 + 0.03 * make_noise(size, 4, 60, rng))
    return shade


def _shade_weave(size: Size, rng: Random) -> Pixels:
    pitch_pixels, depth = rng.uniform(3.5, 6), rng.uniform(0.015, 0.03)
    warp, weft = (np.sin(np.arange(length, dtype=np.float32) * (2 * math.pi / pitch_pixels)) for length in size)
    shade: Pixels = 1 + depth * (warp[None] + weft[:, None])
    return shade
