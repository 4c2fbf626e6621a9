import io

import numpy as np
import pytest
from PIL import Image

from jobs.errors import PermanentError
from jobs.images.perceptual_hash import perceptual_hash
from jobs.retrain.snapshot.curation import NEAR_DUPLICATE_BITS, find_near_duplicates, has_near_duplicate
from tests.retrain.snapshot.labelled_examples import make_look
from tests.retrain.snapshot.scenes import encode_jpeg, make_scene


def test_planted_pairs_are_found_wherever_they_lie_and_no_others() -> None:
    hashes = [make_look(number) for number in range(5000)]
    planted = {(0, 4999): 32, (3, 4): 0, (10, 600): 31, (511, 512): 32, (700, 4800): 1}
    for (first, second), bits in planted.items():
        hashes[second] = make_look(first, bits)
    hashes[2000] = make_look(1000, 33)
    assert [tuple(pair) for pair in find_near_duplicates(hashes, 32).tolist()] == sorted(planted)


def test_every_pair_of_a_cluster_is_found_in_order() -> None:
    hashes = [make_look(7)] * 700
    pairs = find_near_duplicates(hashes, 0).tolist()
    assert pairs == [[first, second] for first in range(700) for second in range(first + 1, 700)]


def test_photo_and_its_negative_are_not_alike() -> None:
    look = make_look(1)
    negative = bytes(255 - value for value in look)
    assert len(find_near_duplicates([look, negative], 127)) == 0


@pytest.mark.parametrize("hashes", [[], [make_look(1)]])
def test_no_pairs_without_two_photos(hashes: list[bytes]) -> None:
    assert find_near_duplicates(hashes, 32).shape == (0, 2)


def test_absurd_number_of_pairs_is_refused_with_what_to_do() -> None:
    with pytest.raises(PermanentError, match="placeholder"):
        find_near_duplicates([make_look(1)] * 3300, 32)


def test_near_duplicates_among_others() -> None:
    others = [make_look(number) for number in range(100, 5000)]
    photos = [make_look(1), make_look(4500, 32), make_look(4500, 33), make_look(100)]
    assert has_near_duplicate(photos, others, 32).tolist() == [False, True, False, True]
    assert has_near_duplicate(photos, [], 32).tolist() == [False] * 4
    assert has_near_duplicate([], others, 32).tolist() == []


def hash_photo(content: bytes) -> bytes:
    return perceptual_hash(np.asarray(Image.open(io.BytesIO(content))))


def test_copies_of_a_photo_are_near_and_other_photos_are_not() -> None:
    scenes = [make_scene(seed) for seed in range(20)]
    photos = [encode_jpeg(scene) for scene in scenes]
    copies = [encode_jpeg(scene.resize((150, 200)), quality=60) for scene in scenes]
    pairs = find_near_duplicates([hash_photo(photo) for photo in photos + copies], NEAR_DUPLICATE_BITS)
    assert pairs.tolist() == [[number, number + 20] for number in range(20)]
