"""Check that every odd file is of its kind."""

import io
import struct
import warnings
from random import Random

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from demo.sample_catalog.odd_files import ODD_FILES, design_odd_product

BY_KIND = {odd_file.kind: odd_file for odd_file in ODD_FILES}


def encode(kind: str) -> bytes:
    odd_file = BY_KIND[kind]
    return odd_file.encode(design_odd_product(7, odd_file), Random(odd_file.key))


def read(kind: str) -> Image.Image:
    image = Image.open(io.BytesIO(encode(kind)))
    image.load()
    return image


def test_one_file_of_each_kind_except_hard_keys() -> None:
    kinds = [odd_file.kind for odd_file in ODD_FILES if odd_file.kind != "hard key"]
    assert len(kinds) == len(set(kinds))
    assert sum(not odd_file.is_readable for odd_file in ODD_FILES) == 6


def test_hard_keys_have_spaces_quotes_and_unicode() -> None:
    keys = " ".join(odd_file.key for odd_file in ODD_FILES if odd_file.kind == "hard key")
    assert set(" '\"%&#;(é\u2013帽📷") <= set(keys)


def test_empty_file() -> None:
    assert encode("empty file") == b""


def test_truncated_jpeg_opens_but_does_not_load() -> None:
    image = Image.open(io.BytesIO(encode("truncated jpeg")))
    assert image.format == "JPEG"
    with pytest.raises(OSError, match="truncated"):
        image.load()


@pytest.mark.parametrize("kind", ["html named jpg", "unknown format"])
def test_no_decoder_recognizes(kind: str) -> None:
    with pytest.raises(UnidentifiedImageError):
        read(kind)


def test_html_is_named_jpg() -> None:
    assert encode("html named jpg").startswith(b"<!DOCTYPE html>")
    assert BY_KIND["html named jpg"].key.endswith(".jpg")


def test_bomb_header_claims_50_000_by_50_000(monkeypatch: pytest.MonkeyPatch) -> None:
    # Our decoder has its own limit and disables Pillow's for the whole process.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 89_478_485)
    bomb = encode("decompression bomb")
    assert len(bomb) < 100
    assert struct.unpack(">II", bomb[16:24]) == (50_000, 50_000)
    with pytest.raises(Image.DecompressionBombError):
        read("decompression bomb")


def test_one_pixel() -> None:
    assert read("one pixel").size == (1, 1)


def test_png_named_jpg() -> None:
    assert read("png named jpg").format == "PNG"
    assert BY_KIND["png named jpg"].key.endswith(".jpg")


def test_animation_starts_with_the_garment_and_ends_black() -> None:
    animation = read("animated gif")
    first = np.asarray(animation.convert("RGB"))
    animation.seek(animation.n_frames - 1)  # type: ignore[attr-defined]
    assert animation.n_frames == 3  # type: ignore[attr-defined]
    assert first.std() > 20
    assert np.asarray(animation.convert("RGB")).max() < 10


def test_broken_exif_affects_metadata_but_not_pixels() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        image = read("broken exif")
        image.getexif()
    assert np.asarray(image).std() > 20
    assert any("Corrupt EXIF" in str(warning.message) for warning in caught)


def test_broken_icc_profile_affects_profile_but_not_pixels() -> None:
    profile = read("broken icc profile").info["icc_profile"]
    with pytest.raises(ImageCms.PyCMSError):
        ImageCms.getOpenProfile(io.BytesIO(profile))


@pytest.mark.parametrize(
    ("kind", "mode"),
    [("grey", "L"), ("16-bit grey", "I;16"), ("cmyk", "CMYK"), ("rgba", "RGBA"), ("palette with transparency", "P")],
)
def test_modes(kind: str, mode: str) -> None:
    assert read(kind).mode == mode


@pytest.mark.parametrize("kind", ["rgba", "palette with transparency"])
def test_transparent_files_are_black_below_and_contrast_with_white(kind: str) -> None:
    image = read(kind).convert("RGBA")
    assert image.getpixel((0, 0)) == (0, 0, 0, 0)
    over_white = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("L")
    assert (np.asarray(over_white) < 200).mean() > 0.1


def test_16_bit_grey_uses_the_whole_range() -> None:
    assert np.asarray(read("16-bit grey")).max() > 255 * 100


def test_rotated_image_is_upright_after_applying_its_exif() -> None:
    turned = read("exif orientation")
    upright = ImageOps.exif_transpose(turned)
    assert turned.getexif()[0x0112] == 6
    assert upright.height > upright.width
