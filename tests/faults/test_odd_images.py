"""Check that unusual images have the same decoded pixels as equivalent plain ones."""

import io
import struct
import zlib
from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from fixtures.shop import make_image
from jobs.failures import DecodeReason
from jobs.images.decode import DecodedImage, DecodeFailure, DecodeLimits, decode_image

LIMITS = DecodeLimits(max_pixels=1_000_000, min_side_pixels=4, target_side=512)
SIDE = 16
GRAY, COLOR = 0, 2
RAMP = np.linspace(0, 1, SIDE * SIDE).reshape(SIDE, SIDE)
"""A ramp from black to white."""
WHITE_IS_ZERO = {262: 0}


def decode(content: bytes) -> np.ndarray:
    decoded = decode_image(content, LIMITS)
    assert isinstance(decoded, DecodedImage), decoded
    return decoded.pixels


def save(image: Image.Image, image_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def make_chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def write_png(values: np.ndarray, depth: int, transparent: Sequence[int] = ()) -> bytes:
    """Write a PNG. Its samples [height, width] or [height, width, 3] use the full range of ``depth`` bits."""
    samples = values.reshape(len(values), -1)
    if depth == 16:
        lines = [row.astype(">u2").tobytes() for row in samples]
    else:
        bits = (samples[..., None] >> np.arange(depth - 1, -1, -1)) & 1
        lines = [np.packbits(row.reshape(-1)).tobytes() for row in bits.astype(np.uint8)]
    color = COLOR if values.ndim == 3 else GRAY
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], depth, color, 0, 0, 0)
    chunks = [make_chunk(b"IHDR", header)]
    if transparent:
        chunks.append(make_chunk(b"tRNS", struct.pack(f">{len(transparent)}H", *transparent)))
    chunks += [make_chunk(b"IDAT", zlib.compress(b"".join(b"\0" + line for line in lines))), make_chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def scale(depth: int) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """Return the ramp as samples with ``depth`` bits."""
    samples: np.ndarray[tuple[int, int], np.dtype[np.int64]] = np.rint(RAMP * (2**depth - 1)).astype(np.int64)
    return samples


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_the_transparent_value_of_a_gray_png_is_white_at_any_depth(depth: int) -> None:
    values = scale(depth)
    expected = np.where(values == 0, 255, np.round(values * 255 / (2**depth - 1)))
    pixels = decode(write_png(values, depth, transparent=[0]))
    assert np.abs(pixels[..., 0] - expected).max() <= 1


@pytest.mark.parametrize("depth", [8, 16])
def test_the_transparent_color_of_a_png_is_white_at_any_depth(depth: int) -> None:
    largest = 2**depth - 1
    values = np.zeros((SIDE, SIDE, 3), np.int64)
    values[: SIDE // 2, :, 0] = largest
    pixels = decode(write_png(values, depth, transparent=[largest, 0, 0]))
    assert (pixels[: SIDE // 2] == 255).all()
    assert (pixels[SIDE // 2 :] == 0).all()


@pytest.mark.parametrize("is_inverted", [False, True])
@pytest.mark.parametrize("largest", [255, 1023, 4095, 65535])
def test_a_tiff_of_more_bits_is_scaled_by_its_range(largest: int, is_inverted: bool) -> None:
    values = np.round((1 - RAMP if is_inverted else RAMP) * largest).astype(np.uint16)
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[281] = largest
    if is_inverted:
        tags[262] = 0
    pixels = decode(save(Image.fromarray(values), "TIFF", tiffinfo=tags))
    assert np.abs(pixels[..., 0] - RAMP * 255).max() <= 1


@pytest.mark.parametrize(
    ("largest", "kind"), [(255, np.int32), (65535, np.int32), (1, np.float32), (255, np.float32), (65535, np.float32)]
)
def test_integers_and_fractions_are_scaled_by_their_range(largest: int, kind: type[np.generic]) -> None:
    content = save(Image.fromarray((RAMP * largest).astype(kind)), "TIFF")
    assert np.abs(decode(content)[..., 0] - RAMP * 255).max() <= 1


def test_the_largest_page_of_a_tiff_is_decoded() -> None:
    with Image.open(io.BytesIO(make_image(1, (80, 96)))) as image:
        pages = [image.resize((40, 48)), image.convert("RGB"), image.resize((20, 24))]
    content = save(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    assert decode(content).shape == (96, 80, 3)


def test_a_page_of_a_tiff_over_the_limit_is_refused() -> None:
    pages = [Image.new("1", (20, 20)), Image.new("1", (1200, 1200))]
    refused = decode_image(save(pages[0], "TIFF", save_all=True, append_images=pages[1:]), LIMITS)
    assert isinstance(refused, DecodeFailure)
    assert refused.reason is DecodeReason.TOO_MANY_PIXELS


def test_a_bmp_with_a_zero_fourth_byte_is_opaque() -> None:
    plain = np.full((SIDE, SIDE, 3), (200, 30, 30), np.uint8)
    odd = Image.fromarray(np.dstack([plain, np.zeros((SIDE, SIDE), np.uint8)]), "RGBA")
    assert (decode(save(odd, "BMP")) == plain).all()


def test_a_fully_transparent_png_is_white() -> None:
    assert (decode(save(Image.new("RGBA", (SIDE, SIDE), (200, 30, 30, 0)), "PNG")) == 255).all()


LARGE = zlib.compress(bytes(200_000_000), 9)
METADATA = {
    "zTXt": make_chunk(b"zTXt", b"note\0\0" + LARGE),
    "iTXt": make_chunk(b"iTXt", b"note\0\1\0\0\0" + LARGE),
    "iCCP": make_chunk(b"iCCP", b"profile\0\0" + LARGE),
    "wrong checksum": make_chunk(b"tEXt", b"note\0words")[:-4] + b"????",
    "wrong checksum of a length": make_chunk(b"pHYs", bytes(9))[:-4] + b"????",
    "wrong checksum of the orientation": make_chunk(b"eXIf", b"MM\0*")[:-4] + b"????",
}


@pytest.mark.parametrize("chunk", METADATA.values(), ids=METADATA)
def test_metadata_is_skipped(chunk: bytes) -> None:
    with Image.open(io.BytesIO(make_image(1))) as image:
        png = save(image, "PNG")
    # Insert the chunk after the header.
    odd = png[:33] + chunk + png[33:]
    assert (decode(odd) == decode(png)).all()


def test_a_png_keeps_its_orientation() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(io.BytesIO(make_image(1, (80, 96)))) as image:
        assert decode(save(image, "PNG", exif=exif)).shape == (80, 96, 3)


def test_a_truncated_png_fails() -> None:
    assert isinstance(decode_image(write_png(scale(8), 8)[:-40], LIMITS), DecodeFailure)
