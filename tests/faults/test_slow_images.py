"""Refuse small JPEGs that take seconds or hours to decode."""

import time
from collections.abc import Callable
from functools import partial
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from fixtures.shop import Shop, make_image, make_scan_bomb
from jobs.failures import DecodeReason
from jobs.images.decode import MAX_SCANS, DecodeFailure, DecodeLimits, decode_pil
from jobs.images.thumbnails import GRID_SIDE, shrink_under_limits
from jobs.ingest.ingest import ingest
from jobs.ingest.plan import IngestOptions
from jobs.settings import ImageSettings

LIMITS = DecodeLimits(max_pixels=100_000_000, min_side_pixels=8, target_side=448)
BOMB = make_scan_bomb(5_000)


def name_fault(decoded: object) -> str | None:
    return decoded.reason if isinstance(decoded, DecodeFailure) else None


@pytest.mark.parametrize(
    "decode", [partial(decode_pil, limits=LIMITS), shrink_under_limits(ImageSettings(), GRID_SIDE)]
)
def test_a_scan_bomb_is_refused_before_it_is_decoded(decode: Callable[[bytes], object]) -> None:
    with Image.open(BytesIO(BOMB)) as image:
        assert image.format == "JPEG"
    started = time.process_time()
    assert name_fault(decode(BOMB)) == DecodeReason.TOO_MANY_SCANS
    assert time.process_time() - started < 0.5


@pytest.mark.parametrize("scans", [0, 50, MAX_SCANS - 11])
def test_usual_numbers_of_scans_are_decoded(scans: int) -> None:
    assert name_fault(decode_pil(make_scan_bomb(scans), LIMITS)) is None


def test_bytes_that_only_look_like_scans_do_not_count() -> None:
    """Put bytes that look like scans into metadata and after the image, where phones store videos."""
    image = make_image(1)
    looks = b"\xff\xda" * 300
    segment = b"\xff\xef" + (len(looks) + 2).to_bytes(2) + looks
    assert name_fault(decode_pil(image[:2] + segment + image[2:] + looks, LIMITS)) is None


def test_scan_bombs_do_not_slow_down_a_run(tagging_shop: Shop, tmp_path: Path) -> None:
    keys = tagging_shop.put_images(8)
    bombs = [f"bomb_{number}.jpg" for number in range(3)]
    for number, key in enumerate(bombs):
        tagging_shop.put(key, BOMB + bytes([number]))
    report = ingest(tagging_shop.connections, IngestOptions())
    assert (report.tagged, report.failed) == (len(keys), len(bombs))
    assert tagging_shop.query("SELECT DISTINCT reason FROM catalog.item_failures") == [("too_many_scans",)]
