import hashlib
from pathlib import Path

import pytest

from fixtures.shop import Shop
from jobs.errors import PermanentError
from jobs.retrain.snapshot.leaks import ImageFingerprint, Leaks, fingerprint_images, measure_leaks, require_no_leak
from jobs.retrain.snapshot.snapshot_file import SnapshotRow, Split, make_snapshot
from jobs.retrain.snapshot.snapshot_images import SnapshotImages
from jobs.storage.locations import example_location
from tests.retrain.snapshot.labeled_examples import make_content_hash, make_image_hash
from tests.retrain.snapshot.scenes import encode_jpeg, make_scene


def make_fingerprint(number: int, group: str, changed_bits: int = 0) -> ImageFingerprint:
    return ImageFingerprint(make_content_hash(number + changed_bits), make_image_hash(number, changed_bits), group)


def test_counts_test_images_for_each_kind_of_leak() -> None:
    test = [make_fingerprint(100 * number, f"test {number}") for number in range(6)]
    others = [make_fingerprint(100 * number, f"train {number}") for number in range(6, 20)]
    assert measure_leaks(test, others, 32) == Leaks(0, 0, 0)
    assert measure_leaks(test, others, 32).is_clean
    assert measure_leaks(test, [*others, make_fingerprint(5000, "test 1"), make_fingerprint(5100, "test 1")], 32) == (
        Leaks(0, 1, 0)
    )
    assert measure_leaks(test, [*others, make_fingerprint(0, "copy"), make_fingerprint(100, "copy")], 32) == (
        Leaks(2, 0, 2)
    )
    near = [make_fingerprint(200, "near", 32), make_fingerprint(300, "far", 33)]
    assert measure_leaks(test, [*others, *near], 32) == Leaks(0, 0, 1)


def make_row(split: Split, number: int, group: str, image_hash: bytes | None = None) -> SnapshotRow:
    image_hash = image_hash or make_image_hash(number)
    return SnapshotRow(make_content_hash(number).hex(), image_hash.hex(), "dress", "", group, split)


CLEAN = [make_row("train", 1, "a"), make_row("validation", 2, "b"), make_row("test", 3, "c")]


def test_accepts_snapshot_without_leak() -> None:
    require_no_leak(make_snapshot(CLEAN), 32)


@pytest.mark.parametrize(
    ("leaking", "message"),
    [
        (make_row("test", 1, "d"), "test images .* 1 share bytes, 0 share a group, 1 are near duplicates"),
        (make_row("test", 9, "a"), "test images .* 0 share bytes, 1 share a group, 0 are near duplicates"),
        (make_row("test", 9, "b"), "test images .* 0 share bytes, 1 share a group, 0 are near duplicates"),
        (make_row("test", 9, "d", make_image_hash(1, 32)), "test images .* 0 share a group, 1 are near duplicates"),
        (make_row("test", 9, "d", make_image_hash(2, 32)), "test images .* 0 share a group, 1 are near duplicates"),
        (make_row("validation", 9, "a"), "validation images .* 1 share a group"),
        (make_row("validation", 9, "d", make_image_hash(1, 5)), "validation images .* 1 are near duplicates"),
    ],
)
def test_rejects_snapshot_with_a_leak(leaking: SnapshotRow, message: str) -> None:
    with pytest.raises(PermanentError, match=message):
        require_no_leak(make_snapshot([*CLEAN, leaking]), 32)


def store_image(shop: Shop, content: bytes, group: str, split: Split) -> SnapshotRow:
    """Store an image. Its row has an arbitrary perceptual hash, which must not be used."""
    content_hash = hashlib.sha256(content).hexdigest()
    shop.connections.store.write(example_location(shop.connections.artifacts, content_hash), content)
    return SnapshotRow(content_hash, make_image_hash(len(content)).hex(), "dress", "", group, split)


def test_fingerprints_are_computed_from_bytes_not_rows(shop: Shop, tmp_path: Path) -> None:
    images = SnapshotImages(shop.connections.store, shop.connections.artifacts)
    scenes = [make_scene(seed) for seed in range(4)]
    train = [store_image(shop, encode_jpeg(scene), f"train {n}", "train") for n, scene in enumerate(scenes)]
    copy = encode_jpeg(scenes[2].resize((600, 800)), quality=60)
    test = [
        store_image(shop, copy, "test 1", "test"),
        store_image(shop, encode_jpeg(make_scene(9)), "test 2", "test"),
    ]
    known, tested = fingerprint_images(images, train, 2), fingerprint_images(images, test, 2)
    assert [image.content_hash.hex() for image in known] == [row.content_hash for row in train]
    assert [image.group_name for image in tested] == ["test 1", "test 2"]
    assert measure_leaks(tested, known, 32) == Leaks(0, 0, 1)


def test_fingerprint_fails_on_modified_or_broken_image(shop: Shop, tmp_path: Path) -> None:
    images = SnapshotImages(shop.connections.store, shop.connections.artifacts)
    modified = store_image(shop, encode_jpeg(make_scene(1)), "a", "train")
    location = example_location(shop.connections.artifacts, modified.content_hash)
    shop.connections.store.write(location, encode_jpeg(make_scene(2)))
    with pytest.raises(PermanentError, match="modified"):
        fingerprint_images(images, [modified], 2)
    with pytest.raises(PermanentError, match="unsupported"):
        fingerprint_images(images, [store_image(shop, b"no image", "a", "train")], 2)
