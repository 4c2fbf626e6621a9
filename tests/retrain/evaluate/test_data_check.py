from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fixtures.candidates import label_photo, make_colored_photo, make_labeled_set, store_labeled_set
from fixtures.shop import Shop
from jobs.retrain.evaluate.data_check import check_data
from jobs.retrain.evaluate.evaluation_record import DataCheck
from jobs.retrain.snapshot.snapshot_file import Snapshot, make_snapshot
from jobs.retrain.snapshot.snapshot_photos import SnapshotPhotos

SET = make_labeled_set(train=3, validation=1, test=2)


def check(shop: Shop, snapshot: Snapshot, tmp_path: Path) -> DataCheck:
    store_labeled_set(shop.connections, SET)
    photos = SnapshotPhotos(shop.connections.store, shop.connections.artifacts, tmp_path)
    return check_data(snapshot, datetime.now(UTC) - timedelta(hours=36), photos)


def test_a_sound_snapshot(shop: Shop, tmp_path: Path) -> None:
    check_of_set = check(shop, SET.snapshot, tmp_path)
    assert check_of_set == DataCheck(12, 4, 8, 2, 0, 0, 0, check_of_set.age_days)
    assert check_of_set.age_days == pytest.approx(1.5, abs=0.01)


def test_a_test_image_that_is_also_trained_on_is_a_leak(shop: Shop, tmp_path: Path) -> None:
    content = make_colored_photo("hat", 4)
    row = label_photo(content, "hat", "another product", "train")
    assert row.content_hash in {row.content_hash for row in SET.snapshot.part("test")}
    leaking = check(shop, make_snapshot([*SET.snapshot.rows, row]), tmp_path)
    assert (leaking.shared_contents, leaking.shared_groups, leaking.shared_near_duplicates) == (1, 0, 1)


def test_a_category_without_test_images_counts_as_none(shop: Shop, tmp_path: Path) -> None:
    rows = [row for row in SET.snapshot.rows if row.category != "hat" or row.split != "test"]
    assert check(shop, make_snapshot(rows), tmp_path).fewest_test_images_of_a_category == 0
