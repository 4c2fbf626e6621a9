"""Takes a photo of a garment: pose, backdrop, shadow, light, grain."""

import math
from random import Random

import numpy as np
from PIL import Image, ImageFilter

from demo.sample_catalog.backdrop import choose_backdrop_colour, paint_backdrop, spread_noise
from demo.sample_catalog.canvas import Cutout, Pixels, paint_garment, to_shares
from demo.sample_catalog.fabric import Fabric
from demo.sample_catalog.marks import Garment, collect_points
from demo.sample_catalog.placement import Placement, Pose, Size

_DRAWN_SIDE_PIXELS = 480
"""Larger photos are enlarged from this: drawing costs by the pixel, and the garments have no finer detail."""
_FRAME_RATIOS = (2 / 3, 3 / 4, 4 / 5, 1.0, 5 / 4, 4 / 3, 3 / 2)
"""Width over height."""
_SHADOW_REDUCTION = 4


def take_photo(garment: Garment, fabric: Fabric, longest_side: int, rng: Random) -> Image.Image:
    """An RGB photo whose longer side has ``longest_side`` pixels."""
    ratio = _choose_frame_ratio(garment, rng)
    drawn = _measure_frame(ratio, min(longest_side, _DRAWN_SIDE_PIXELS))
    cutout = _pose_garment(garment, fabric, drawn, rng)
    scene = paint_backdrop(choose_backdrop_colour(fabric, rng), drawn, rng) * _cast_shadow(cutout, rng)
    scene += (_shade_cloth(cutout, rng) - scene) * cutout.coverage
    photo = _to_image(scene * _shed_light(drawn, rng) + _scatter_grain(drawn, rng), "RGB")
    return photo.resize(_measure_frame(ratio, longest_side), Image.Resampling.BICUBIC)


def take_cutout(garment: Garment, fabric: Fabric, longest_side: int, rng: Random) -> Image.Image:
    """The garment alone: an RGBA image, transparent around the garment, with black hidden there."""
    cutout = _pose_garment(garment, fabric, _measure_frame(_choose_frame_ratio(garment, rng), longest_side), rng)
    cloth = _shade_cloth(cutout, rng) * (cutout.coverage > 0)
    return _to_image(np.concatenate([cloth, cutout.coverage[None] * 255]), "RGBA")


def _choose_frame_ratio(garment: Garment, rng: Random) -> float:
    """One of the three usual ratios that suit the garment best, so that it fills its photo."""
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
    """Volume and soft folds; folds also lift the tone a little, so that black cloth shows them."""
    folds = spread_noise(cutout.size, rng.randint(5, 8), rng.randint(3, 5), rng)
    shaded: Pixels = cutout.colour * (0.74 + 0.26 * cutout.form + 0.06 * folds)
    shaded += 8 * np.maximum(folds, 0)
    return shaded


def _cast_shadow(cutout: Cutout, rng: Random) -> Pixels:
    """The share of light, shape (height, width), that reaches the backdrop: soft, and falling downwards."""
    small = Image.fromarray((cutout.coverage * 255).astype(np.uint8)).reduce(_SHADOW_REDUCTION)
    side = max(small.size)
    soft = small.filter(ImageFilter.GaussianBlur(side * rng.uniform(0.012, 0.04)))
    reach, direction = side * rng.uniform(0.01, 0.035), rng.uniform(-1.2, 1.2)
    shift = (1, 0, -reach * math.sin(direction), 0, 1, -reach * math.cos(direction))
    shadow = soft.transform(soft.size, Image.Transform.AFFINE, shift, Image.Resampling.BILINEAR)
    light: Pixels = 1 - rng.uniform(0.25, 0.5) * to_shares(shadow.resize(cutout.size, Image.Resampling.BILINEAR))
    return light


def _shed_light(frame: Size, rng: Random) -> Pixels:
    """Shape (3, height, width): exposure, colour temperature, a gradient from one side, darker corners."""
    x, y = (np.linspace(-1, 1, length, dtype=np.float32) for length in frame)
    direction, strength, vignette = rng.uniform(0, 2 * math.pi), rng.uniform(0, 0.12), rng.uniform(0, 0.1)
    across = 1 + strength * math.cos(direction) * x - vignette * x * x
    down = strength * math.sin(direction) * y - vignette * y * y
    exposure, warmth = rng.uniform(0.88, 1.06), rng.uniform(-0.035, 0.035)
    tint = exposure * np.array([1 + warmth, 1, 1 - warmth], np.float32)
    light: Pixels = tint[:, None, None] * (across[None] + down[:, None])
    return light


def _scatter_grain(frame: Size, rng: Random) -> Pixels:
    """The noise of a sensor, shape (height, width), up to 4 of 255."""
    grain = np.random.default_rng(rng.getrandbits(64)).integers(-3, 4, frame[::-1], dtype=np.int8)
    return grain * np.float32(rng.uniform(0.2, 1.4))


def _to_image(bands: Pixels, mode: str) -> Image.Image:
    return Image.merge(mode, [Image.fromarray(band) for band in np.clip(bands, 0, 255).astype(np.uint8)])
