import fcntl
import hashlib
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fixtures.shop import Shop
from jobs.errors import PermanentError
from jobs.images.geometry import Geometry
from jobs.retrain.snapshot.image_shards import ImageShards
from jobs.retrain.snapshot.snapshot_file import SnapshotRow
from jobs.retrain.snapshot.snapshot_images import SnapshotImages
from jobs.storage.locations import example_location
from tests.retrain.snapshot.scenes import encode_jpeg, make_scene

GEOMETRY = Geometry(resize_to=40, crop_to=32, keep_aspect=True, interpolation="bicubic")


def store_image(shop: Shop, number: int) -> SnapshotRow:
    content = encode_jpeg(make_scene(number))
    content_hash = hashlib.sha256(content).hexdigest()
    shop.connections.store.write(example_location(shop.connections.artifacts, content_hash), content)
    return SnapshotRow(content_hash, "00" * 32, "dress", "", f"group {number}", "train")


def open_images(shop: Shop) -> SnapshotImages:
    return SnapshotImages(shop.connections.store, shop.connections.artifacts)


def test_pixels_are_those_that_serving_decodes(shop: Shop) -> None:
    rows = [store_image(shop, number) for number in range(3)]
    pixels = open_images(shop).load_pixels(rows, GEOMETRY)
    assert pixels.shape == (3, 3, 32, 32)
    for row, loaded in zip(rows, pixels.permute(0, 2, 3, 1).numpy(), strict=True):
        decoded = open_images(shop).decode(row.content_hash, 2 * GEOMETRY.resize_to).pixels
        assert np.array_equal(loaded, GEOMETRY.resize(Image.fromarray(decoded)))


def test_shards_hold_the_pixels_as_jpegs(shop: Shop, tmp_path: Path) -> None:
    rows = [store_image(shop, number) for number in range(5)]
    images = open_images(shop)
    images.store_shards(rows, GEOMETRY, tmp_path / "shards")
    shards = ImageShards(tmp_path / "shards", GEOMETRY.crop_to)
    assert len(shards) == 5
    difference = shards.decode([3, 1]).int() - images.load_pixels([rows[3], rows[1]], GEOMETRY).int()
    assert difference.abs().float().mean() < 6


def test_stored_shards_are_not_written_again(shop: Shop, tmp_path: Path) -> None:
    stored = store_image(shop, 0)
    open_images(shop).store_shards([stored], GEOMETRY, tmp_path / "shards")
    shop.connections.store.write(example_location(shop.connections.artifacts, stored.content_hash), b"gone")
    open_images(shop).store_shards([stored], GEOMETRY, tmp_path / "shards")
    assert torch.is_tensor(ImageShards(tmp_path / "shards", GEOMETRY.crop_to).decode([0]))


def test_waits_for_another_process_that_writes_the_same_shards(shop: Shop, tmp_path: Path) -> None:
    stored, folder = store_image(shop, 0), tmp_path / "shards"
    with ThreadPoolExecutor(1) as pool, folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiting = pool.submit(open_images(shop).store_shards, [stored], GEOMETRY, folder)
        assert not wait([waiting], timeout=0.5).done
        folder.mkdir()
        fcntl.flock(lock, fcntl.LOCK_UN)
        waiting.result(timeout=60)
    assert list(folder.iterdir()) == []


def test_an_unreadable_image_leaves_no_shards(shop: Shop, tmp_path: Path) -> None:
    stored = store_image(shop, 0)
    shop.connections.store.write(example_location(shop.connections.artifacts, stored.content_hash), b"gone")
    with pytest.raises(PermanentError, match="was modified"):
        open_images(shop).store_shards([stored], GEOMETRY, tmp_path / "shards")
    assert [path.name for path in tmp_path.iterdir()] == ["shards.lock"]
