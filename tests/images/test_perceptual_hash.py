import io
import os
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fixtures.shop import make_image
from jobs.images.decode import DecodedImage, DecodeLimits, decode_image
from jobs.images.perceptual_hash import DECODED_SIDE_PIXELS, perceptual_hash
from jobs.settings import PROJECT_ROOT

IMAGES = Path(os.environ.get("CATALOG_REAL_PHOTOS", PROJECT_ROOT.parent / "shared" / "data" / "clothing-small"))
SAME_BITS = 32


def hash_content(content: bytes, target_side: int = DECODED_SIDE_PIXELS) -> bytes:
    decoded = decode_image(content, DecodeLimits(10**8, 8, target_side))
    assert isinstance(decoded, DecodedImage)
    return perceptual_hash(decoded.pixels)


def count_differing_bits(one: bytes, other: bytes) -> int:
    return (int.from_bytes(one) ^ int.from_bytes(other)).bit_count()


def copy_image(content: bytes, scale: float = 1, quality: int = 90) -> bytes:
    """Return the same image, resized and compressed again."""
    image = Image.open(io.BytesIO(content)).convert("RGB")
    buffer = io.BytesIO()
    image.resize((round(image.width * scale), round(image.height * scale))).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def real_images() -> list[bytes]:
    """Return eighty images of every category."""
    if not IMAGES.is_dir():
        pytest.skip("no real images: set CATALOG_REAL_PHOTOS to an ImageFolder")
    paths = sorted(IMAGES.glob("validation/*/*.jpg"))
    return [path.read_bytes() for path in paths[:: len(paths) // 80]]


def test_the_hash_has_256_bits_and_depends_only_on_pixels() -> None:
    content = make_image(1)
    assert len(hash_content(content)) == 32
    assert hash_content(content) == hash_content(make_image(1, image_format="JPEG")) != hash_content(make_image(2))


def test_a_blank_image_has_a_hash() -> None:
    assert len(perceptual_hash(np.full((40, 40, 3), 255, dtype=np.uint8))) == 32


def test_an_image_is_hashed_upright() -> None:
    image = Image.open(io.BytesIO(make_image(1, (256, 320), "PNG")))
    exif = Image.Exif()
    exif[0x0112] = 3
    turned, upright = io.BytesIO(), io.BytesIO()
    image.transpose(Image.Transpose.ROTATE_180).save(turned, "PNG", exif=exif)
    image.save(upright, "PNG")
    assert hash_content(turned.getvalue()) == hash_content(upright.getvalue())


@pytest.mark.parametrize(("scale", "quality"), [(1, 50), (0.5, 90), (1.5, 90), (0.7, 60)])
def test_copies_of_a_real_image_differ_in_few_bits(real_images: list[bytes], scale: float, quality: int) -> None:
    differences = [
        count_differing_bits(hash_content(image), hash_content(copy_image(image, scale, quality)))
        for image in real_images
    ]
    assert max(differences) <= SAME_BITS


def test_different_real_images_differ_in_more_bits(real_images: list[bytes]) -> None:
    hashes = [hash_content(image) for image in real_images]
    assert min(count_differing_bits(one, other) for one, other in combinations(hashes, 2)) > SAME_BITS


def test_shrinking_while_decoding_changes_few_bits(real_images: list[bytes]) -> None:
    large = [copy_image(image, scale=3) for image in real_images[:8]]
    assert all(
        count_differing_bits(hash_content(image), hash_content(image, target_side=100_000)) <= 4 for image in large
    )


@pytest.mark.parametrize("seed", range(5))
def test_generated_copies_differ_in_few_bits_and_other_images_in_many(seed: int) -> None:
    content = make_image(seed, (200, 260))
    assert count_differing_bits(hash_content(content), hash_content(copy_image(content, 0.8, 70))) <= SAME_BITS
    assert count_differing_bits(hash_content(content), hash_content(make_image(seed + 100, (200, 260)))) > SAME_BITS
