"""Encode files that are hard to process: damaged files, valid but unusual files, and keys that are hard to quote."""

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from random import Random

import numpy as np
from PIL import Image

from demo.sample_catalog.fabric import COLORS, measure_contrast
from demo.sample_catalog.products import CATEGORIES, SampleProduct, design_product
from demo.sample_catalog.scene import render_cutout, render_image

BROKEN_PREFIX = "broken/"
BOMB_SIDE_PIXELS = 50_000

_SIDE_PIXELS = 400
_EXIF_ORIENTATION = 0x0112
_EXIF_TURN_CLOCKWISE = 6
_VISIBLE_ON_WHITE = 150.0


@dataclass(frozen=True)
class OddFile:
    """A file of the unlabeled part. If ``is_readable``, it shows a garment and is expected to be tagged."""

    key: str
    kind: str
    category_name: str
    encode: Callable[[SampleProduct, Random], bytes]
    is_readable: bool = True


def design_odd_product(seed: int, odd_file: OddFile) -> SampleProduct:
    """Design a product that contrasts with white, the background on which transparent images are decoded."""
    category = next(category for category in CATEGORIES if category.name == odd_file.category_name)
    designs = (design_product(seed, f"{odd_file.key}/{attempt}", category) for attempt in count())
    return next(design for design in designs if _is_visible_on_white(design))


def _is_visible_on_white(product: SampleProduct) -> bool:
    return measure_contrast(product.fabric.color, COLORS["white"]) > _VISIBLE_ON_WHITE


def _render_image(product: SampleProduct, rng: Random) -> Image.Image:
    return render_image(product.garment, product.fabric, _SIDE_PIXELS, rng)


def _render_cutout(product: SampleProduct, rng: Random) -> Image.Image:
    return render_cutout(product.garment, product.fabric, _SIDE_PIXELS, rng)


def _encode(image: Image.Image, file_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def _encode_jpeg(product: SampleProduct, rng: Random) -> bytes:
    return _encode(_render_image(product, rng), "JPEG", quality=85)


def _encode_nothing(product: SampleProduct, rng: Random) -> bytes:
    return b""


def _encode_half_jpeg(product: SampleProduct, rng: Random) -> bytes:
    whole = _encode_jpeg(product, rng)
    return whole[: len(whole) // 2]


def _encode_web_page(product: SampleProduct, rng: Random) -> bytes:
    return b"<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head><body>No such photo</body></html>\n"


def _encode_bomb(product: SampleProduct, rng: Random) -> bytes:
    """Encode a PNG of less than 100 bytes that needs 7.5 GB when decoded."""
    header = struct.pack(">IIBBBBB", BOMB_SIDE_PIXELS, BOMB_SIDE_PIXELS, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(16))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_encode_png_chunk(name, body) for name, body in chunks)


def _encode_png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def _encode_one_pixel(product: SampleProduct, rng: Random) -> bytes:
    return _encode(Image.new("RGB", (1, 1), product.fabric.color), "PNG")


def _encode_unknown_format(product: SampleProduct, rng: Random) -> bytes:
    return b"GARMENT\x00\x02" + rng.randbytes(4096)


def _encode_png(product: SampleProduct, rng: Random) -> bytes:
    return _encode(_render_image(product, rng), "PNG")


def _encode_animation(product: SampleProduct, rng: Random) -> bytes:
    first = _render_image(product, rng).quantize(128)
    fading = [Image.blend(first.convert("RGB"), Image.new("RGB", first.size), share) for share in (0.5, 1)]
    return _encode(first, "GIF", save_all=True, append_images=[frame.quantize(128) for frame in fading], duration=200)


def _encode_broken_exif(product: SampleProduct, rng: Random) -> bytes:
    """Encode an EXIF directory that claims to have 65,535 entries. The first one points outside the file."""
    entry = struct.pack(">HHII", _EXIF_ORIENTATION, 2, 1 << 30, 1 << 31)
    segment = b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\xff\xff" + entry + rng.randbytes(32)
    jpeg = _encode_jpeg(product, rng)
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + jpeg[2:]


def _encode_broken_icc(product: SampleProduct, rng: Random) -> bytes:
    return _encode(_render_image(product, rng), "JPEG", quality=85, icc_profile=b"not a profile " + rng.randbytes(256))


def _encode_grey(product: SampleProduct, rng: Random) -> bytes:
    return _encode(_render_image(product, rng).convert("L"), "JPEG", quality=85)


def _encode_grey_16_bit(product: SampleProduct, rng: Random) -> bytes:
    grey = np.asarray(_render_image(product, rng).convert("L"), np.uint16)
    return _encode(Image.fromarray(grey * np.uint16(257)), "PNG")


def _encode_cmyk(product: SampleProduct, rng: Random) -> bytes:
    return _encode(_render_image(product, rng).convert("CMYK"), "JPEG", quality=90)


def _encode_transparent(product: SampleProduct, rng: Random) -> bytes:
    return _encode(_render_cutout(product, rng), "PNG")


def _encode_transparent_palette(product: SampleProduct, rng: Random) -> bytes:
    cutout = _render_cutout(product, rng)
    return _encode(cutout.quantize(64, method=Image.Quantize.FASTOCTREE), "PNG")


def _encode_turned(product: SampleProduct, rng: Random) -> bytes:
    """Encode pixels rotated by 90 degrees, with an EXIF orientation that corrects it."""
    exif = Image.Exif()
    exif[_EXIF_ORIENTATION] = _EXIF_TURN_CLOCKWISE
    sideways = _render_image(product, rng).transpose(Image.Transpose.ROTATE_90)
    return _encode(sideways, "JPEG", quality=85, exif=exif)


ODD_FILES = (
    OddFile(f"{BROKEN_PREFIX}empty.jpg", "empty file", "bag", _encode_nothing, is_readable=False),
    OddFile(f"{BROKEN_PREFIX}truncated.jpg", "truncated jpeg", "coat", _encode_half_jpeg, is_readable=False),
    OddFile(f"{BROKEN_PREFIX}web_page.jpg", "html named jpg", "cap", _encode_web_page, is_readable=False),
    OddFile(f"{BROKEN_PREFIX}bomb.png", "decompression bomb", "boot", _encode_bomb, is_readable=False),
    OddFile(f"{BROKEN_PREFIX}one_pixel.png", "one pixel", "hat", _encode_one_pixel, is_readable=False),
    OddFile(f"{BROKEN_PREFIX}unknown.tiff", "unknown format", "shirt", _encode_unknown_format, is_readable=False),
    OddFile(f"{BROKEN_PREFIX}png_inside.jpg", "png named jpg", "skirt", _encode_png),
    OddFile(f"{BROKEN_PREFIX}animation.gif", "animated gif", "sneaker", _encode_animation),
    OddFile(f"{BROKEN_PREFIX}broken_exif.jpg", "broken exif", "pants", _encode_broken_exif),
    OddFile(f"{BROKEN_PREFIX}broken_icc.jpg", "broken icc profile", "dress", _encode_broken_icc),
    OddFile("modes/grey.jpg", "grey", "hoodie", _encode_grey),
    OddFile("modes/grey_16_bit.png", "16-bit grey", "shorts", _encode_grey_16_bit),
    OddFile("modes/cmyk.jpg", "cmyk", "t-shirt", _encode_cmyk),
    OddFile("modes/transparent.png", "rgba", "socks", _encode_transparent),
    OddFile("modes/transparent_palette.png", "palette with transparency", "bag", _encode_transparent_palette),
    OddFile("modes/turned.jpg", "exif orientation", "coat", _encode_turned),
    OddFile('women\'s "best" dress \u2013 été 1.jpg', "hard key", "dress", _encode_jpeg),
    OddFile("new in/50% off + more; #7 & (copy).jpg", "hard key", "sneaker", _encode_jpeg),
    OddFile("帽子 📷.JPG", "hard key", "hat", _encode_jpeg),
)
