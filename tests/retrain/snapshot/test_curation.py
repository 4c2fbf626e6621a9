from collections.abc import Iterable, Mapping

import pytest

from jobs.database.examples import Example, RememberedSplit
from jobs.retrain.snapshot.curation import Contradiction, Curation, curate_examples, join_text
from tests.retrain.snapshot.labelled_examples import make_content_hash, make_example, make_look, sort_examples


def curate(
    examples: Iterable[Example], memory: Mapping[bytes, RememberedSplit] | None = None, min_images: int = 1
) -> Curation:
    return curate_examples(sort_examples(examples), memory or {}, 32, min_images)


def kept_numbers(curation: Curation, among: range) -> set[int]:
    kept = {photo.content_hash for photo in curation.photos}
    return {number for number in among if make_content_hash(number) in kept}


def dropped(curation: Curation) -> dict[str, int]:
    assert curation.examples == len(curation.photos) + sum(curation.dropped.values())
    return {reason: count for reason, count in curation.dropped.items() if count}


def test_equal_bytes_stay_once_with_the_first_text_that_there_is() -> None:
    curation = curate(
        [
            make_example(1, group="g", key="a.jpg"),
            make_example(1, group="h", key="b.jpg", title="Red dress", description="With stripes"),
            make_example(1, group="h", key="c.jpg", title="Another text"),
            make_example(2),
        ]
    )
    assert dropped(curation) == {"exact_duplicate": 2}
    photo = next(photo for photo in curation.photos if photo.content_hash == make_content_hash(1))
    assert (photo.full_text, photo.group_name, photo.category) == ("Red dress. With stripes", "g", "dress")


def test_equal_bytes_with_two_categories_are_all_dropped_and_named() -> None:
    curation = curate([make_example(1, "skirt", key="a.jpg"), make_example(1, "shorts", key="b.jpg"), make_example(2)])
    assert dropped(curation) == {"contradictory_label": 2}
    assert curation.contradictions == (Contradiction("shop/a.jpg", "skirt", "shop/b.jpg", "shorts"),)
    assert kept_numbers(curation, range(3)) == {2}


def test_near_duplicates_with_two_categories_are_both_dropped_even_from_test() -> None:
    memory: dict[bytes, RememberedSplit] = {make_content_hash(1): "test"}
    examples = [make_example(1, "skirt"), make_example(2, "shorts", look=make_look(1, 32)), make_example(3)]
    curation = curate(examples, memory)
    assert dropped(curation) == {"contradictory_label": 2}
    assert curation.contradictions == (Contradiction("shop/00001.jpg", "skirt", "shop/00002.jpg", "shorts"),)
    assert kept_numbers(curation, range(4)) == {3}


@pytest.mark.parametrize("category", ["skirt", "shorts"])
def test_photo_near_one_that_contradicts_itself_is_dropped_too(category: str) -> None:
    examples = [make_example(1, "skirt"), make_example(1, "shorts", key="again.jpg")]
    curation = curate([*examples, make_example(2, category, look=make_look(1, 10))])
    assert dropped(curation) == {"contradictory_label": 3}


def test_of_near_duplicates_the_first_by_content_hash_stays() -> None:
    curation = curate([make_example(number, look=make_look(0, number)) for number in range(5)])
    assert dropped(curation) == {"near_duplicate": 4}
    assert [photo.content_hash for photo in curation.photos] == [min(make_content_hash(number) for number in range(5))]


@pytest.mark.parametrize("chosen", range(4))
def test_of_near_duplicates_the_one_that_was_ever_in_test_stays_else_that_of_train(chosen: int) -> None:
    examples = [make_example(number, look=make_look(0, number)) for number in range(4)]
    trained: dict[bytes, RememberedSplit] = {make_content_hash(chosen): "train"}
    assert kept_numbers(curate(examples, trained), range(4)) == {chosen}
    other = (chosen + 1) % 4
    tested: dict[bytes, RememberedSplit] = {make_content_hash(other): "train", make_content_hash(chosen): "test"}
    assert kept_numbers(curate(examples, tested), range(4)) == {chosen}


def test_ends_of_a_chain_both_stay() -> None:
    """1 looks like 2 and 2 like 3, but 1 not like 3."""
    looks = {1: make_look(0), 2: make_look(0, 30), 3: make_look(0, 60)}
    memory: dict[bytes, RememberedSplit] = {make_content_hash(1): "test", make_content_hash(2): "train"}
    curation = curate([make_example(number, look=look) for number, look in looks.items()], memory)
    assert kept_numbers(curation, range(4)) == {1, 3}


def test_rare_categories_are_left_out_by_what_is_left_of_them() -> None:
    examples = [make_example(number) for number in range(10)]
    examples += [make_example(number, "hat") for number in range(10, 15)]
    copies = [make_example(number, "hat", key=f"copy {number}") for number in range(10, 15)]
    curation = curate([*examples, *copies], min_images=10)
    assert dropped(curation) == {"exact_duplicate": 5, "rare_category": 5}
    assert curation.rare_categories == {"hat": 5}
    assert {photo.category for photo in curation.photos} == {"dress"}


def test_twenty_contradictions_are_named() -> None:
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
def test_text_is_title_and_description(title: str, description: str, text: str) -> None:
    assert join_text(title, description) == text
