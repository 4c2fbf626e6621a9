import io
from collections.abc import Iterable, Mapping

import numpy as np
import pytest
from PIL import Image

from jobs.database.examples import Example, RememberedSplit
from jobs.errors import PermanentError
from jobs.images.perceptual_hash import perceptual_hash
from jobs.retrain.snapshot.curation import (
    NEAR_DUPLICATE_BITS,
    Contradiction,
    Curation,
    curate_examples,
    find_near_duplicates,
    has_near_duplicate,
    join_text,
)
from tests.retrain.snapshot.labeled_examples import make_content_hash, make_example, make_image_hash, sort_examples
from tests.retrain.snapshot.scenes import encode_jpeg, make_scene


def curate(
    examples: Iterable[Example], memory: Mapping[bytes, RememberedSplit] | None = None, min_images: int = 1
) -> Curation:
    return curate_examples(sort_examples(examples), memory or {}, 32, min_images)


def kept_numbers(curation: Curation, among: range) -> set[int]:
    kept = {image.content_hash for image in curation.images}
    return {number for number in among if make_content_hash(number) in kept}


def dropped(curation: Curation) -> dict[str, int]:
    assert curation.examples == len(curation.images) + sum(curation.dropped.values())
    return {reason: count for reason, count in curation.dropped.items() if count}


def test_keeps_one_exact_duplicate_with_the_first_non_empty_text() -> None:
    curation = curate(
        [
            make_example(1, group="g", key="a.jpg"),
            make_example(1, group="h", key="b.jpg", title="Red dress", description="With stripes"),
            make_example(1, group="h", key="c.jpg", title="Another text"),
            make_example(2),
        ]
    )
    assert dropped(curation) == {"exact_duplicate": 2}
    image = next(image for image in curation.images if image.content_hash == make_content_hash(1))
    assert (image.full_text, image.group_name, image.category) == ("Red dress. With stripes", "g", "dress")


def test_drops_and_reports_equal_bytes_with_two_categories() -> None:
    curation = curate([make_example(1, "skirt", key="a.jpg"), make_example(1, "shorts", key="b.jpg"), make_example(2)])
    assert dropped(curation) == {"contradictory_label": 2}
    assert curation.contradictions == (Contradiction("shop/a.jpg", "skirt", "shop/b.jpg", "shorts"),)
    assert kept_numbers(curation, range(3)) == {2}


def test_drops_near_duplicates_with_two_categories_even_from_test() -> None:
    memory: dict[bytes, RememberedSplit] = {make_content_hash(1): "test"}
    examples = [make_example(1, "skirt"), make_example(2, "shorts", image_hash=make_image_hash(1, 32)), make_example(3)]
    curation = curate(examples, memory)
    assert dropped(curation) == {"contradictory_label": 2}
    assert curation.contradictions == (Contradiction("shop/00001.jpg", "skirt", "shop/00002.jpg", "shorts"),)
    assert kept_numbers(curation, range(4)) == {3}


@pytest.mark.parametrize("category", ["skirt", "shorts"])
def test_drops_near_duplicates_of_a_contradictory_image(category: str) -> None:
    examples = [make_example(1, "skirt"), make_example(1, "shorts", key="again.jpg")]
    curation = curate([*examples, make_example(2, category, image_hash=make_image_hash(1, 10))])
    assert dropped(curation) == {"contradictory_label": 3}


def test_keeps_first_near_duplicate_by_content_hash() -> None:
    curation = curate([make_example(number, image_hash=make_image_hash(0, number)) for number in range(5)])
    assert dropped(curation) == {"near_duplicate": 4}
    assert [image.content_hash for image in curation.images] == [min(make_content_hash(number) for number in range(5))]


@pytest.mark.parametrize("chosen", range(4))
def test_keeps_near_duplicate_from_test_then_from_train(chosen: int) -> None:
    examples = [make_example(number, image_hash=make_image_hash(0, number)) for number in range(4)]
    trained: dict[bytes, RememberedSplit] = {make_content_hash(chosen): "train"}
    assert kept_numbers(curate(examples, trained), range(4)) == {chosen}
    other = (chosen + 1) % 4
    tested: dict[bytes, RememberedSplit] = {make_content_hash(other): "train", make_content_hash(chosen): "test"}
    assert kept_numbers(curate(examples, tested), range(4)) == {chosen}


def test_keeps_both_ends_of_a_chain() -> None:
    """1 is near 2, and 2 is near 3, but 1 is not near 3."""
    hashes = {1: make_image_hash(0), 2: make_image_hash(0, 30), 3: make_image_hash(0, 60)}
    memory: dict[bytes, RememberedSplit] = {make_content_hash(1): "test", make_content_hash(2): "train"}
    curation = curate([make_example(number, image_hash=image_hash) for number, image_hash in hashes.items()], memory)
    assert kept_numbers(curation, range(4)) == {1, 3}


def test_counts_rare_categories_after_dropping_duplicates() -> None:
    examples = [make_example(number) for number in range(10)]
    examples += [make_example(number, "hat") for number in range(10, 15)]
    copies = [make_example(number, "hat", key=f"copy {number}") for number in range(10, 15)]
    curation = curate([*examples, *copies], min_images=10)
    assert dropped(curation) == {"exact_duplicate": 5, "rare_category": 5}
    assert curation.rare_categories == {"hat": 5}
    assert {image.category for image in curation.images} == {"dress"}


def test_reports_twenty_contradictions() -> None:
    examples = [make_example(n // 2, ["dress", "hat"][n % 2], key=f"{n}.jpg") for n in range(60)]
    assert len(curate(examples).contradictions) == 20


@pytest.mark.parametrize(
    ("title", "description", "text"),
    [
        ("Red dress", "With stripes", "Red dress. With stripes"),
        (" Red\n dress ", " With\tstripes ", "Red dress. With stripes"),
        ("Red dress", "red dress with stripes", "red dress with stripes"),
        ("Red dress!", "With stripes", "Red dress! With stripes"),
        ("Red dress", "", "Red dress"),
        ("", "With stripes", "With stripes"),
        (" ", "\n", ""),
    ],
)
def test_joins_title_and_description(title: str, description: str, text: str) -> None:
    assert join_text(title, description) == text


def test_finds_exactly_the_planted_pairs() -> None:
    hashes = [make_image_hash(number) for number in range(5000)]
    planted = {(0, 4999): 32, (3, 4): 0, (10, 600): 31, (511, 512): 32, (700, 4800): 1}
    for (first, second), bits in planted.items():
        hashes[second] = make_image_hash(first, bits)
    hashes[2000] = make_image_hash(1000, 33)
    assert [tuple(pair) for pair in find_near_duplicates(hashes, 32).tolist()] == sorted(planted)


def test_finds_every_pair_of_a_cluster_in_order() -> None:
    hashes = [make_image_hash(7)] * 700
    pairs = find_near_duplicates(hashes, 0).tolist()
    assert pairs == [[first, second] for first in range(700) for second in range(first + 1, 700)]


def test_image_and_its_negative_are_not_near() -> None:
    image_hash = make_image_hash(1)
    negative = bytes(255 - value for value in image_hash)
    assert len(find_near_duplicates([image_hash, negative], 127)) == 0


@pytest.mark.parametrize("hashes", [[], [make_image_hash(1)]])
def test_finds_no_pairs_in_fewer_than_two_images(hashes: list[bytes]) -> None:
    assert find_near_duplicates(hashes, 32).shape == (0, 2)


def test_fails_with_advice_on_too_many_pairs() -> None:
    with pytest.raises(PermanentError, match="placeholder"):
        find_near_duplicates([make_image_hash(1)] * 3300, 32)


def test_marks_images_with_a_near_duplicate_among_others() -> None:
    others = [make_image_hash(number) for number in range(100, 5000)]
    images = [make_image_hash(1), make_image_hash(4500, 32), make_image_hash(4500, 33), make_image_hash(100)]
    assert has_near_duplicate(images, others, 32).tolist() == [False, True, False, True]
    assert has_near_duplicate(images, [], 32).tolist() == [False] * 4
    assert has_near_duplicate([], others, 32).tolist() == []


def hash_image(content: bytes) -> bytes:
    return perceptual_hash(np.asarray(Image.open(io.BytesIO(content))))


def test_copies_are_near_and_other_images_are_not() -> None:
    scenes = [make_scene(seed) for seed in range(20)]
    images = [encode_jpeg(scene) for scene in scenes]
    copies = [encode_jpeg(scene.resize((150, 200)), quality=60) for scene in scenes]
    pairs = find_near_duplicates([hash_image(image) for image in images + copies], NEAR_DUPLICATE_BITS)
    assert pairs.tolist() == [[number, number + 20] for number in range(20)]
