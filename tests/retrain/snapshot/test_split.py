import csv
import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jobs.database.examples import RememberedSplit
from jobs.retrain.snapshot.curation import CuratedPhoto
from jobs.retrain.snapshot.snapshot_file import Split
from jobs.retrain.snapshot.split import split_groups
from jobs.settings import PROJECT_ROOT
from tests.retrain.snapshot.labelled_examples import make_content_hash, make_look

REAL_PHOTOS = Path(os.environ.get("CATALOG_REAL_PHOTOS", PROJECT_ROOT.parent / "shared" / "data" / "clothing-small"))
CATEGORIES = ("bag", "coat", "dress", "hat", "shoes")
SEEDS = range(12)

Memory = dict[bytes, RememberedSplit]


def make_photo(number: int, category: str, group: str) -> CuratedPhoto:
    return CuratedPhoto(make_content_hash(number), make_look(0), category, "", group)


def make_photos(seed: int, count: int = 1500) -> list[CuratedPhoto]:
    """Photos in groups of very unequal size, some of one category and some of many, in unequal categories."""
    rng = np.random.default_rng(seed)
    sizes = 1 / (1 + np.arange(rng.integers(60, 300))) ** rng.uniform(0, 1.2)
    groups = rng.choice(len(sizes), count, p=sizes / sizes.sum())
    favourites = rng.integers(0, len(CATEGORIES), len(sizes))
    shares = np.array([0.05, 0.1, 0.15, 0.3, 0.4])
    anything = rng.choice(len(CATEGORIES), count, p=shares)
    is_loyal = rng.random(count) < rng.random()
    categories = np.where(is_loyal, favourites[groups], anything)
    first = 100_000 * seed
    return [
        make_photo(first + number, CATEGORIES[category], f"group {group}")
        for number, (category, group) in enumerate(zip(categories, groups, strict=True))
    ]


def split(photos: Sequence[CuratedPhoto], memory: Mapping[bytes, RememberedSplit] | None = None) -> dict[bytes, Split]:
    """The part of each photo."""
    parts = split_groups(photos, memory or {}, 0.1, 0.1)
    assert parts.keys() == {photo.group_name for photo in photos}
    return {photo.content_hash: parts[photo.group_name] for photo in photos}


def remember(parts: Mapping[bytes, Split], before: Memory | None = None) -> Memory:
    """As ``remember_splits`` does."""
    memory: Memory = {key: "test" if part == "test" else "train" for key, part in parts.items()}
    tested: Memory = {key: "test" for key, side in (before or {}).items() if side == "test"}
    return (before or {}) | memory | tested


def count(photos: Sequence[CuratedPhoto], parts: Mapping[bytes, Split], part: Split) -> Counter[str]:
    return Counter(photo.category for photo in photos if parts[photo.content_hash] == part)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_category_has_its_share_in_every_part(seed: int) -> None:
    photos = make_photos(seed)
    parts = split(photos)
    everything = Counter(photo.category for photo in photos)
    test, validation = count(photos, parts, "test"), count(photos, parts, "validation")
    for category in CATEGORIES:
        assert 0.05 <= test[category] / everything[category] <= 0.16
        assert 0.04 <= validation[category] / (everything[category] - test[category]) <= 0.17
    assert 0.09 <= test.total() / len(photos) <= 0.15
    assert 0.08 <= validation.total() / (len(photos) - test.total()) <= 0.15


@pytest.mark.parametrize("seed", SEEDS)
def test_order_does_not_matter_and_memory_changes_nothing(seed: int) -> None:
    photos = make_photos(seed)
    parts = split(photos)
    shuffled = [photos[position] for position in np.random.default_rng(seed).permutation(len(photos))]
    assert split(shuffled) == parts
    assert split(photos, remember(parts)) == parts


@pytest.mark.parametrize("seed", SEEDS)
def test_with_more_labels_test_stays_test_and_train_stays_out_of_it(seed: int) -> None:
    photos = make_photos(seed)
    order = np.random.default_rng(seed).permutation(len(photos))
    memory: Memory = {}
    for known in (300, 700, 1500):
        labelled = [photos[position] for position in order[:known]]
        parts = split(labelled, memory)
        assert all(parts[key] == "test" for key, side in memory.items() if side == "test")
        assert all(parts[key] != "test" for key, side in memory.items() if side == "train")
        memory = remember(parts, memory)
    tested = sum(side == "test" for side in memory.values())
    assert 0.05 <= tested / len(photos) <= 0.2


@pytest.mark.parametrize("seed", SEEDS)
def test_with_new_groups_the_shares_are_kept(seed: int) -> None:
    old, new = make_photos(seed), [replace(photo, group_name=f"new {photo.group_name}") for photo in make_photos(99)]
    parts = split([*old, *new], remember(split(old)))
    assert 0.09 <= count([*old, *new], parts, "test").total() / 3000 <= 0.15


@pytest.mark.parametrize("seed", SEEDS)
def test_renamed_and_merged_groups_keep_test_photos_in_test(seed: int) -> None:
    photos = make_photos(seed)
    memory = remember(split(photos))
    renamed = [replace(photo, group_name=f"renamed {photo.group_name}") for photo in photos]
    assert remember(split(renamed, memory)) == memory
    merged = [replace(photo, group_name=f"{int(photo.group_name.split()[1]) // 2}") for photo in photos]
    parts = split(merged, memory)
    sides = defaultdict(set)
    for photo in merged:
        sides[photo.group_name].add(parts[photo.content_hash])
        assert memory[photo.content_hash] == "train" or parts[photo.content_hash] == "test"
    assert all(len(parts_of_group) == 1 for parts_of_group in sides.values())


def test_group_far_larger_than_the_share_is_trained_on() -> None:
    photos = [make_photo(number, "hat", "giant") for number in range(400)]
    photos += [make_photo(1000 + number, "hat", f"group {number // 4}") for number in range(400)]
    parts = split(photos)
    assert parts[make_content_hash(0)] != "test"
    assert count(photos, parts, "test") == {"hat": 80}


def test_category_of_three_large_groups_is_in_every_part() -> None:
    photos = [make_photo(number, "hat", f"hats {number % 3}") for number in range(60)]
    photos += [make_photo(1000 + number, "dress", f"dresses {number // 5}") for number in range(500)]
    parts = split(photos)
    assert {part: count(photos, parts, part)["hat"] for part in ("train", "test")} == {"train": 40, "test": 20}


def test_category_of_one_group_is_trained_on() -> None:
    photos = [make_photo(number, "hat", "hats") for number in range(20)]
    photos += [make_photo(100 + number, "dress", "hats") for number in range(30)]
    photos += [make_photo(1000 + number, "dress", f"dresses {number}") for number in range(300)]
    parts = split(photos)
    assert {parts[make_content_hash(number)] for number in range(20)} == {"train"}


def test_category_of_which_only_large_groups_are_left_is_tested_all_the_same() -> None:
    sizes = {"single": 1, **{f"large {number}": 50 for number in range(4)}}
    photos = [
        make_photo(100 * group + number, "hat", name)
        for group, (name, size) in enumerate(sizes.items())
        for number in range(size)
    ]
    photos += [make_photo(1000 + number, "dress", f"dresses {number // 5}") for number in range(500)]
    parts = split(photos)
    assert count(photos, parts, "test")["hat"] == 51
    assert split(photos, remember(parts)) == parts


def test_category_of_two_large_groups_is_not_halved() -> None:
    photos = [make_photo(number, "hat", f"hats {number % 2}") for number in range(200)]
    photos += [make_photo(1000 + number, "dress", f"dresses {number // 5}") for number in range(500)]
    assert count(photos, split(photos), "train")["hat"] == 200


def read_real_labels(part: str) -> list[CuratedPhoto]:
    with (REAL_PHOTOS / "labels.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == part]
    return [make_photo(number, row["label"], row["contributor"]) for number, row in enumerate(rows)]


@pytest.mark.skipif(not REAL_PHOTOS.is_dir(), reason="no real photos: set CATALOG_REAL_PHOTOS to an ImageFolder")
def test_real_contributors_leave_enough_to_test_every_category() -> None:
    photos = read_real_labels("train")
    parts = split(photos)
    test = count(photos, parts, "test")
    assert test.total() >= 300
    assert min(test.values()) >= 8
    assert len(test) == len(count(photos, parts, "train")) == len(count(photos, parts, "validation")) == 10
    assert 0.1 <= test.total() / len(photos) <= 0.13
