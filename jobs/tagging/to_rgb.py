"""Whatever Pillow opens, as eight bits of red, green and blue: what a viewer shows, over white."""

import numpy as np
from PIL import Image

SIXTEEN_BIT_MODES = {"I;16", "I;16B", "I;16L", "I;16N", "I", "F"}
RANGES = (255, 65_535, 2**32 - 1)
"""Of integers whose file does not tell their largest."""
PHOTOMETRIC, WHITE_IS_ZERO = 262, 0
LARGEST_VALUE = 281
PAGES_COMPARED = 32


def choose_page(image: Image.Image) -> None:
    """Turn to the largest page of a TIFF, of which the first may be its thumbnail."""
    if image.format != "TIFF" or getattr(image, "n_frames", 1) == 1:
        return
    sizes = []
    for page in range(min(image.n_frames, PAGES_COMPARED)):  # type: ignore[attr-defined]
        image.seek(page)
        sizes.append(image.width * image.height)
    image.seek(sizes.index(max(sizes)))


def convert_to_rgb(image: Image.Image, png_depth: int | None) -> Image.Image:
    """The page that is shown: transparent areas over white, more bits scaled to 8.

    ``png_depth`` is the number of bits of a sample of a PNG, in which the value that is transparent is told.
    """
    image.load()
    if image.mode in SIXTEEN_BIT_MODES:
        return _from_sixteen_bits(image)
    if png_depth is not None:
        image = _scale_transparent_value(image, png_depth)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        # Many programs leave the fourth byte of a BMP at 0 and mean nothing by it.
        if image.format == "BMP" and rgba.getchannel("A").getextrema() == (0, 0):
            return rgba.convert("RGB")
        canvas = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(canvas, rgba).convert("RGB")
    return image.convert("RGB")


def _scale_transparent_value(image: Image.Image, depth: int) -> Image.Image:
    """Tell the transparent value in the eight bits to which Pillow has scaled the samples."""
    value = image.info.get("transparency")
    if depth == 8 or image.mode not in {"1", "L", "RGB"} or not isinstance(value, int | tuple):
        return image
    largest = 2**depth - 1
    scaled = tuple(one * 255 // largest for one in (value if isinstance(value, tuple) else (value,)))
    grey = image.convert("L") if image.mode == "1" else image
    grey.info["transparency"] = scaled if isinstance(value, tuple) else scaled[0]
    return grey


def _from_sixteen_bits(image: Image.Image) -> Image.Image:
    """Pillow clips these modes at 255 when it converts them, so they are scaled here, by the range that is in use."""
    tags = getattr(image, "tag_v2", {})
    values: np.ndarray = np.asarray(image, dtype=np.float32)
    largest = _find_largest(image.mode, values, tags.get(LARGEST_VALUE))
    scaled = values * (255 / largest)
    if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:
        scaled = 255 - scaled
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        scaled[values == transparent] = 255
    return Image.fromarray(np.clip(scaled + 0.5, 0, 255).astype(np.uint8)).convert("RGB")


def _find_largest(mode: str, values: np.ndarray, told: object) -> float:
    """The value that is white: as the file tells, or by the range of its type."""
    if isinstance(told, tuple):
        told = max(told, default=None)
    if isinstance(told, int | float) and told > 0:
        return float(told)
    if mode.startswith("I;16"):
        return 65_535
    highest = float(values.max(initial=0))
    if mode == "F" and highest <= 1:
        return 1
    return next((largest for largest in RANGES if highest <= largest), highest)
