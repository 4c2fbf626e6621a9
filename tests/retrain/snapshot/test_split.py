import csv
import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jobs.database.examples import RememberedSplit
from jobs.retrain.snapshot.curation import CuratedImage
from jobs.retrain.snapshot.snapshot_file import Split
from jobs.retrain.snapshot.split import split_groups
from jobs.settings import PROJECT_ROOT
from tests.retrain.snapshot.labeled_examples import make_content_hash, make_image_hash

REAL_IMAGES = Path(os.environ.get("CATALOG_REAL_PHOTOS", PROJECT_ROOT.parent / "shared" / "data" / "clothing-small"))
CATEGORIES = ("bag", "coat", "dress", "hat", "shoes")
SEEDS = range(12)

Memory = dict[bytes, RememberedSplit]


def make_image(number: int, category: str, group: str) -> CuratedImage:
    return CuratedImage(make_content_hash(number), make_image_hash(0), category, "", group)


def make_images(seed: int, count: int = 1500) -> list[CuratedImage]:
    """Make images in groups of very unequal size, with one category or many, and categories of unequal size."""
    rng = np.random.default_rng(seed)
    sizes = 1 / (1 + np.arange(rng.integers(60, 300))) ** rng.uniform(0, 1.2)
    groups = rng.choice(len(sizes), count, p=sizes / sizes.sum())
    group_categories = rng.integers(0, len(CATEGORIES), len(sizes))
    shares = np.array([0.05, 0.1, 0.15, 0.3, 0.4])
    random_categories = rng.choice(len(CATEGORIES), count, p=shares)
    has_one_category = rng.random(count) < rng.random()
    categories = np.where(has_one_category, group_categories[groups], random_categories)
    first = 100_000 * seed
    return [
        make_image(first + number, CATEGORIES[category], f"group {group}")
        for number, (category, group) in enumerate(zip(categories, groups, strict=True))
    ]


def split(images: Sequence[CuratedImage], memory: Mapping[bytes, RememberedSplit] | None = None) -> dict[bytes, Split]:
    """Return the split of each image."""
    splits = split_groups(images, memory or {}, 0.1, 0.1)
    assert splits.keys() == {image.group_name for image in images}
    return {image.content_hash: splits[image.group_name] for image in images}


def remember(splits: Mapping[bytes, Split], before: Memory | None = None) -> Memory:
    """Update the memory like ``remember_splits``."""
    memory: Memory = {key: "test" if part == "test" else "train" for key, part in splits.items()}
    tested: Memory = {key: "test" for key, side in (before or {}).items() if side == "test"}
    return (before or {}) | memory | tested


def count(images: Sequence[CuratedImage], splits: Mapping[bytes, Split], part: Split) -> Counter[str]:
    return Counter(image.category for image in images if splits[image.content_hash] == part)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_category_has_its_share_in_every_split(seed: int) -> None:
    images = make_images(seed)
    splits = split(images)
    everything = Counter(image.category for image in images)
    test, validation = count(images, splits, "test"), count(images, splits, "validation")
    for category in CATEGORIES:
        assert 0.05 <= test[category] / everything[category] <= 0.16
        assert 0.04 <= validation[category] / (everything[category] - test[category]) <= 0.17
    assert 0.09 <= test.total() / len(images) <= 0.15
    assert 0.08 <= validation.total() / (len(images) - test.total()) <= 0.15


@pytest.mark.parametrize("seed", SEEDS)
def test_split_does_not_depend_on_order_or_memory(seed: int) -> None:
    images = make_images(seed)
    splits = split(images)
    shuffled = [images[position] for position in np.random.default_rng(seed).permutation(len(images))]
    assert split(shuffled) == splits
    assert split(images, remember(splits)) == splits


@pytest.mark.parametrize("seed", SEEDS)
def test_images_keep_their_side_when_labels_are_added(seed: int) -> None:
    images = make_images(seed)
    order = np.random.default_rng(seed).permutation(len(images))
    memory: Memory = {}
    for known in (300, 700, 1500):
        labeled = [images[position] for position in order[:known]]
        splits = split(labeled, memory)
        assert all(splits[key] == "test" for key, side in memory.items() if side == "test")
        assert all(splits[key] != "test" for key, side in memory.items() if side == "train")
        memory = remember(splits, memory)
    tested = sum(side == "test" for side in memory.values())
    assert 0.05 <= tested / len(images) <= 0.2


@pytest.mark.parametrize("seed", SEEDS)
def test_new_groups_keep_the_shares(seed: int) -> None:
    old, new = make_images(seed), [replace(image, group_name=f"new {image.group_name}") for image in make_images(99)]
    splits = split([*old, *new], remember(split(old)))
    assert 0.09 <= count([*old, *new], splits, "test").total() / 3000 <= 0.15


@pytest.mark.parametrize("seed", SEEDS)
def test_renamed_and_merged_groups_keep_test_images_in_test(seed: int) -> None:
    images = make_images(seed)
    memory = remember(split(images))
    renamed = [replace(image, group_name=f"renamed {image.group_name}") for image in images]
    assert remember(split(renamed, memory)) == memory
    merged = [replace(image, group_name=f"{int(image.group_name.split()[1]) // 2}") for image in images]
    splits = split(merged, memory)
    sides = defaultdict(set)
    for image in merged:
        sides[image.group_name].add(splits[image.content_hash])
        assert memory[image.content_hash] == "train" or splits[image.content_hash] == "test"
    assert all(len(splits_of_group) == 1 for splits_of_group in sides.values())


def test_group_much_larger_than_the_share_goes_to_train() -> None:
    images = [make_image(number, "hat", "giant") for number in range(400)]
    images += [make_image(1000 + number, "hat", f"group {number // 4}") for number in range(400)]
    splits = split(images)
    assert splits[make_content_hash(0)] != "test"
    assert count(images, splits, "test") == {"hat": 80}


def test_category_of_three_large_groups_is_in_train_and_test() -> None:
    images = [make_image(number, "hat", f"hats {number % 3}") for number in range(60)]
    images += [make_image(1000 + number, "dress", f"dresses {number // 5}") for number in range(500)]
    splits = split(images)
    assert {part: count(images, splits, part)["hat"] for part in ("train", "test")} == {"train": 40, "test": 20}


def test_category_of_one_group_goes_to_train() -> None:
    images = [make_image(number, "hat", "hats") for number in range(20)]
    images += [make_image(100 + number, "dress", "hats") for number in range(30)]
    images += [make_image(1000 + number, "dress", f"dresses {number}") for number in range(300)]
    splits = split(images)
    assert {splits[make_content_hash(number)] for number in range(20)} == {"train"}


def test_category_with_only_large_new_groups_is_still_tested() -> None:
    sizes = {"single": 1, **{f"large {number}": 50 for number in range(4)}}
    images = [
        make_image(100 * group + number, "hat", name)
        for group, (name, size) in enumerate(sizes.items())
        for number in range(size)
    ]
    images += [make_image(1000 + number, "dress", f"dresses {number // 5}") for number in range(500)]
    splits = split(images)
    assert count(images, splits, "test")["hat"] == 51
    assert split(images, remember(splits)) == splits


def test_category_of_two_large_groups_stays_in_train() -> None:
    images = [make_image(number, "hat", f"hats {number % 2}") for number in range(200)]
    images += [make_image(1000 + number, "dress", f"dresses {number // 5}") for number in range(500)]
    assert count(images, split(images), "train")["hat"] == 200


def read_real_labels(part: str) -> list[CuratedImage]:
    with (REAL_IMAGES / "labels.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == part]
    return [make_image(number, row["label"], row["contributor"]) for number, row in enumerate(rows)]


@pytest.mark.skipif(not REAL_IMAGES.is_dir(), reason="no real images. Set CATALOG_REAL_PHOTOS to an ImageFolder")
def test_real_contributors_give_enough_test_images_of_every_category() -> None:
    images = read_real_labels("train")
    splits = split(images)
    test = count(images, splits, "test")
    assert test.total() >= 300
    assert min(test.values()) >= 8
    assert len(test) == len(count(images, splits, "train")) == len(count(images, splits, "validation")) == 10
    assert 0.1 <= test.total() / len(images) <= 0.13
