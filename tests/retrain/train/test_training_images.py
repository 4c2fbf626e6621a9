import pytest
import torch
from torch.utils.data import DataLoader

from jobs.retrain.snapshot.image_shards import ImageShards
from jobs.retrain.train.requests import Augmentation
from jobs.retrain.train.training_images import AugmentedImages, Batch, Images, take_batch
from tests.retrain.train.training_contexts import store_images

PIXELS = torch.randint(0, 256, (7, 3, 24, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
FIELDS = {"labels": torch.arange(7)}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> ImageShards:
    return store_images(tmp_path_factory.mktemp("images") / "shards", PIXELS)


def make_images(shards: ImageShards, seed: int = 1) -> AugmentedImages:
    return AugmentedImages(shards, FIELDS, Augmentation(smallest_crop=0.5), 20, seed)


def load(images: Images, workers: int = 0) -> list[Batch]:
    return list(DataLoader(images, 3, num_workers=workers, collate_fn=take_batch))


def read_augmented(images: AugmentedImages, workers: int = 0) -> torch.Tensor:
    return torch.cat([images.augment(batch)["pixels"] for batch in load(images, workers)])


def test_images_are_returned_unchanged_with_their_fields(shards: ImageShards) -> None:
    batches = load(Images(shards, FIELDS))
    assert torch.equal(torch.cat([batch["pixels"] for batch in batches]), shards.decode(range(7)))
    assert torch.equal(torch.cat([batch["labels"] for batch in batches]), FIELDS["labels"])


def test_augmented_images_keep_their_fields(shards: ImageShards) -> None:
    images = make_images(shards)
    batch = images.augment(images.__getitems__([4, 1]))
    assert batch.keys() == {"pixels", "labels"}
    assert batch["pixels"].shape == (2, 3, 20, 20)
    assert batch["labels"].tolist() == [4, 1]


def test_validation_batches_are_not_augmented(shards: ImageShards) -> None:
    batch = Images(shards, FIELDS).__getitems__([4, 1])
    assert make_images(shards).augment(batch) is batch


def test_changes_depend_only_on_seed_epoch_and_position(shards: ImageShards) -> None:
    """Neither random numbers drawn before, nor the order of access, nor the number of workers matters."""
    images = make_images(shards)
    first = read_augmented(images)
    torch.rand(100)
    backwards = images.augment(images.__getitems__(range(6, -1, -1)))["pixels"].flip(0)
    assert torch.equal(first, backwards)
    assert torch.equal(first, read_augmented(images, workers=2))
    images.set_epoch(1)
    second = read_augmented(images, workers=2)
    assert not torch.equal(first, second)
    assert torch.equal(second, read_augmented(images))
    assert not torch.equal(first, read_augmented(make_images(shards, seed=2)))


def test_the_global_random_state_is_not_changed(shards: ImageShards) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    images = make_images(shards)
    images.augment(images.__getitems__([0, 1]))
    assert torch.equal(torch.rand(3), expected)
