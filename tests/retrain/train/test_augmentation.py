import torch

from jobs.retrain.train.augmentation import AugmentedPhotos, Photos, build_augmentation
from jobs.retrain.train.requests import Augmentation

PIXELS = torch.randint(0, 256, (6, 3, 24, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
FIELDS = {"labels": torch.arange(6)}
FULL = build_augmentation(Augmentation(smallest_crop=0.5), 24)


def see(photos: Photos) -> torch.Tensor:
    return torch.stack([photos[index]["pixels"] for index in range(len(photos))])


def test_photos_as_they_are() -> None:
    photos = Photos(PIXELS, FIELDS)
    assert torch.equal(see(photos), PIXELS)
    assert [int(photos[index]["labels"]) for index in range(6)] == list(range(6))


def test_a_photo_is_changed_and_keeps_its_shape_and_fields() -> None:
    photos = AugmentedPhotos(PIXELS, FIELDS, FULL, seed=1)
    assert see(photos).shape == PIXELS.shape
    assert all(not torch.equal(photos[index]["pixels"], PIXELS[index]) for index in range(6))
    assert int(photos[4]["labels"]) == 4


def test_the_change_depends_on_seed_epoch_and_index_alone() -> None:
    """Whatever was drawn before, in whatever order photos are asked for."""
    photos, again = AugmentedPhotos(PIXELS, FIELDS, FULL, seed=1), AugmentedPhotos(PIXELS, FIELDS, FULL, seed=1)
    first = see(photos)
    torch.rand(100)
    backwards = torch.stack([again[index]["pixels"] for index in reversed(range(6))]).flip(0)
    assert torch.equal(first, backwards)
    photos.set_epoch(1)
    assert not torch.equal(see(photos), first)
    photos.set_epoch(0)
    assert torch.equal(see(photos), first)
    assert not torch.equal(see(AugmentedPhotos(PIXELS, FIELDS, FULL, seed=2)), first)


def test_the_same_photo_twice_is_changed_in_two_ways() -> None:
    photos = AugmentedPhotos(PIXELS[:1].repeat(6, 1, 1, 1), FIELDS, FULL, seed=1)
    assert len({photos[index]["pixels"].numpy().tobytes() for index in range(6)}) == 6


def test_random_numbers_of_others_are_left_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    see(AugmentedPhotos(PIXELS, FIELDS, FULL, seed=1))
    assert torch.equal(torch.rand(3), expected)
