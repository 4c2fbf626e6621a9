"""Decode valid, broken and hostile files."""

import io
import random
import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from fixtures.shop import make_image
from jobs.failures import DecodeReason
from jobs.images.decode import DecodedImage, DecodeFailure, DecodeLimits, decode_image

LIMITS = DecodeLimits(max_pixels=1_000_000, min_side_pixels=8, target_side=64)


def encode(image: Image.Image, image_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def decode(content: bytes, limits: DecodeLimits = LIMITS) -> DecodedImage:
    decoded = decode_image(content, limits)
    assert isinstance(decoded, DecodedImage), decoded
    assert decoded.pixels.dtype == np.uint8
    assert decoded.pixels.shape[2] == 3
    return decoded


def fail(content: bytes, limits: DecodeLimits = LIMITS) -> DecodeFailure:
    fault = decode_image(content, limits)
    assert isinstance(fault, DecodeFailure)
    return fault


def claim_png(width: int, height: int) -> bytes:
    """Return a small PNG whose header claims any size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", DecodeReason.EMPTY),
        (make_image(1)[:400], DecodeReason.TRUNCATED),
        (b"<!DOCTYPE html><html><body>404</body></html>", DecodeReason.UNSUPPORTED),
        (b"just text", DecodeReason.UNSUPPORTED),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', DecodeReason.UNSUPPORTED),
        (claim_png(50_000, 50_000), DecodeReason.TOO_MANY_PIXELS),
        (make_image(1, (1, 1), "PNG"), DecodeReason.TOO_SMALL),
        (make_image(1, (7, 300), "PNG"), DecodeReason.TOO_SMALL),
    ],
)
def test_bad_bytes_fail_with_a_reason(content: bytes, reason: DecodeReason) -> None:
    assert fail(content).reason is reason


def test_images_at_the_limits_are_decoded() -> None:
    limits = DecodeLimits(max_pixels=8 * 30, min_side_pixels=8, target_side=64)
    decoded = decode(make_image(1, (8, 30), "PNG"), limits)
    assert (decoded.width, decoded.height) == (8, 30)
    assert fail(make_image(1, (8, 31), "PNG"), limits).reason is DecodeReason.TOO_MANY_PIXELS


def test_a_decompression_bomb_is_refused_from_its_header() -> None:
    bomb = encode(Image.new("1", (30_000, 30_000)), "PNG")
    started = time.process_time()
    assert fail(bomb).reason is DecodeReason.TOO_MANY_PIXELS
    assert time.process_time() - started < 0.5


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_every_format_keeps_its_pixels(image_format: str) -> None:
    original = Image.new("RGB", (40, 60), (200, 40, 90))
    decoded = decode(encode(original, image_format))
    assert (decoded.width, decoded.height) == (40, 60)
    assert np.abs(decoded.pixels.astype(int) - (200, 40, 90)).max() <= 6


def test_transparent_areas_become_white() -> None:
    image = Image.new("RGBA", (20, 20), (0, 0, 0, 0))
    image.paste((255, 0, 0, 255), (0, 0, 10, 20))
    for content in (encode(image, "PNG"), encode(image, "WEBP", lossless=True)):
        pixels = decode(content).pixels
        assert pixels[5, 15].tolist() == [255, 255, 255]
        assert pixels[5, 5].tolist() == [255, 0, 0]


def test_transparent_palette_becomes_white() -> None:
    image = Image.new("P", (20, 20), 0)
    image.putpalette([0, 0, 255, 255, 0, 0] + [0] * 762)
    image.paste(1, (0, 0, 10, 20))
    pixels = decode(encode(image, "PNG", transparency=0)).pixels
    assert pixels[5, 15].tolist() == [255, 255, 255]
    assert pixels[5, 5].tolist() == [255, 0, 0]


def test_gray_has_three_equal_channels() -> None:
    assert decode(encode(Image.new("L", (20, 20), 77), "PNG")).pixels[3, 3].tolist() == [77, 77, 77]


def test_sixteen_bit_samples_are_scaled() -> None:
    values = np.full((20, 20), 32_896, dtype=np.uint16)
    content = encode(Image.fromarray(values), "PNG")
    assert decode(content).pixels[3, 3].tolist() == [128, 128, 128]


def test_cmyk_colors_are_converted() -> None:
    content = encode(Image.new("RGB", (32, 32), (220, 30, 40)).convert("CMYK"), "JPEG", quality=95)
    assert np.abs(decode(content).pixels[9, 9].astype(int) - (220, 30, 40)).max() <= 12


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int, image_format: str) -> None:
    # The result must equal that of ImageOps.exif_transpose.
    image = Image.fromarray(np.random.default_rng(3).integers(0, 255, (6, 4, 3), dtype=np.uint8))
    image = image.resize((64, 96), Image.Resampling.NEAREST)
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encode(image, image_format, exif=exif, quality=95)
    with Image.open(io.BytesIO(content)) as opened:
        opened.load()
        upright = ImageOps.exif_transpose(opened).convert("RGB")
    assert upright.size == ((96, 64) if orientation >= 5 else (64, 96))
    decoded = decode(content)
    assert (decoded.width, decoded.height) == upright.size
    assert np.array_equal(decoded.pixels, np.asarray(upright))


def test_broken_exif_and_profiles_are_ignored() -> None:
    image = Image.new("RGB", (40, 40), (10, 200, 30))
    for content in (
        encode(image, "JPEG", exif=b"Exif\0\0MM\0*" + b"\xff" * 40),
        encode(image, "JPEG", icc_profile=b"no profile" * 20),
        encode(image, "PNG", icc_profile=b"no profile" * 20),
    ):
        assert decode(content).pixels.shape == (40, 40, 3)


def test_an_animation_decodes_to_its_first_frame() -> None:
    frames = [Image.new("RGB", (30, 30), color) for color in ("red", "blue")]
    content = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode(content).pixels[5, 5].tolist() == [255, 0, 0]


def test_the_format_is_detected_from_the_bytes() -> None:
    assert decode(make_image(1, image_format="PNG")).pixels.shape == (128, 96, 3)


def test_a_large_jpeg_is_decoded_smaller_but_not_below_the_target() -> None:
    decoded = decode(make_image(1, (600, 900)))
    assert (decoded.width, decoded.height) == (600, 900)
    assert 64 <= min(decoded.pixels.shape[:2]) < 600


def test_mutated_files_never_raise() -> None:
    random_bytes = random.Random(11)
    for image_format in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"):
        original = make_image(5, (40, 50), image_format)
        for _ in range(150):
            content = bytearray(original)
            for _ in range(random_bytes.randint(1, 12)):
                content[random_bytes.randrange(len(content))] = random_bytes.randrange(256)
            if random_bytes.random() < 0.3:
                del content[random_bytes.randrange(len(content)) :]
            assert isinstance(decode_image(bytes(content), LIMITS), DecodedImage | DecodeFailure)
