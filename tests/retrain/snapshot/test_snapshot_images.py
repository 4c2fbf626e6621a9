import fcntl
import hashlib
import os
import time
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest
import torch

from fixtures.shop import Shop
from jobs.errors import PermanentError
from jobs.images.geometry import Geometry
from jobs.retrain.snapshot.snapshot_file import SnapshotRow
from jobs.retrain.snapshot.snapshot_images import UNUSED_DAYS, SnapshotImages
from jobs.storage.locations import example_location
from tests.retrain.snapshot.scenes import encode_jpeg, make_scene

GEOMETRY = Geometry(resize_to=40, crop_to=32, keep_aspect=True, interpolation="bicubic")


def store_image(shop: Shop, number: int) -> SnapshotRow:
    content = encode_jpeg(make_scene(number))
    content_hash = hashlib.sha256(content).hexdigest()
    shop.connections.store.write(example_location(shop.connections.artifacts, content_hash), content)
    return SnapshotRow(content_hash, "00" * 32, "dress", "", f"group {number}", "train")


def list_pixels(cache: Path) -> set[str]:
    return {path.name for path in (cache / "pixels").glob("*.npy")}


def test_reuses_cached_pixels(shop: Shop, tmp_path: Path) -> None:
    rows = [store_image(shop, number) for number in range(3)]
    images = SnapshotImages(shop.connections.store, shop.connections.artifacts, tmp_path)
    pixels = images.load_pixels(rows, GEOMETRY)
    assert pixels.shape == (3, 3, 32, 32)
    shop.connections.store.write(example_location(shop.connections.artifacts, rows[0].content_hash), b"gone")
    assert torch.equal(images.load_pixels(rows, GEOMETRY), pixels)


def test_waits_for_another_process_that_decodes_the_same_rows(shop: Shop, tmp_path: Path) -> None:
    stored = store_image(shop, 0)
    images = SnapshotImages(shop.connections.store, shop.connections.artifacts, tmp_path)
    pixels = images.load_pixels([stored], GEOMETRY)
    path = next((tmp_path / "pixels").glob("*.npy"))
    hidden = path.rename(tmp_path / "hidden.npy")
    shop.connections.store.write(example_location(shop.connections.artifacts, stored.content_hash), b"gone")
    with ThreadPoolExecutor(1) as pool, path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiting = pool.submit(images.load_pixels, [stored], GEOMETRY)
        assert not wait([waiting], timeout=0.5).done
        hidden.rename(path)
        fcntl.flock(lock, fcntl.LOCK_UN)
        assert torch.equal(waiting.result(timeout=60), pixels)
    assert list_pixels(tmp_path) == {path.name}


def test_deletes_pixels_unused_for_long(shop: Shop, tmp_path: Path) -> None:
    first, second, third = (store_image(shop, number) for number in range(3))
    images = SnapshotImages(shop.connections.store, shop.connections.artifacts, tmp_path)
    images.load_pixels([first], GEOMETRY)
    (forgotten,) = list_pixels(tmp_path)
    images.load_pixels([second], GEOMETRY)
    long_ago = time.time() - (UNUSED_DAYS + 1) * 24 * 3600
    for path in (tmp_path / "pixels").glob("*.npy"):
        os.utime(path, (long_ago, long_ago))
    images.load_pixels([second], GEOMETRY)
    images.load_pixels([third], GEOMETRY)
    assert len(list_pixels(tmp_path)) == 2
    assert forgotten not in list_pixels(tmp_path)


def test_shards_hold_the_pixels_as_jpegs(shop: Shop, tmp_path: Path) -> None:
    rows = [store_image(shop, number) for number in range(5)]
    images = SnapshotImages(shop.connections.store, shop.connections.artifacts, tmp_path)
    shards = images.load_shards(rows, GEOMETRY)
    assert len(shards) == 5
    difference = shards.decode([3, 1]).int() - images.load_pixels([rows[3], rows[1]], GEOMETRY).int()
    assert difference.abs().float().mean() < 6


def test_reuses_cached_shards(shop: Shop, tmp_path: Path) -> None:
    stored = store_image(shop, 0)
    images = SnapshotImages(shop.connections.store, shop.connections.artifacts, tmp_path)
    jpeg = images.load_shards([stored], GEOMETRY).read(0)
    shop.connections.store.write(example_location(shop.connections.artifacts, stored.content_hash), b"gone")
    assert images.load_shards([stored], GEOMETRY).read(0) == jpeg


def test_an_unreadable_image_leaves_no_shards(shop: Shop, tmp_path: Path) -> None:
    stored = store_image(shop, 0)
    images = SnapshotImages(shop.connections.store, shop.connections.artifacts, tmp_path)
    shop.connections.store.write(example_location(shop.connections.artifacts, stored.content_hash), b"gone")
    with pytest.raises(PermanentError, match="was modified"):
        images.load_shards([stored], GEOMETRY)
    assert list((tmp_path / "shards").iterdir()) == []


def test_deletes_shards_unused_for_long(shop: Shop, tmp_path: Path) -> None:
    first, second = (store_image(shop, number) for number in range(2))
    images = SnapshotImages(shop.connections.store, shop.connections.artifacts, tmp_path)
    images.load_shards([first], GEOMETRY)
    long_ago = time.time() - (UNUSED_DAYS + 1) * 24 * 3600
    os.utime(images.locate_shards([first], GEOMETRY), (long_ago, long_ago))
    images.load_shards([second], GEOMETRY)
    assert list((tmp_path / "shards").iterdir()) == [images.locate_shards([second], GEOMETRY)]
