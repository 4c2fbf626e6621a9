"""Read batches of training images with their fields, in the DataLoader's workers."""

from collections.abc import Sequence
from typing import Any

import torch

from jobs.retrain.snapshot.image_shards import ImageShards
from jobs.retrain.train.augmentation import augment, draw_numbers
from jobs.retrain.train.requests import Augmentation

Batch = dict[str, torch.Tensor]
NUMBERS = "numbers"


class Images(torch.utils.data.Dataset[Batch]):
    """Images with their fields, unchanged. A DataLoader reads a whole batch at once, with `take_batch` as collator."""

    def __init__(self, shards: ImageShards, fields: Batch) -> None:
        self._shards = shards
        self._fields = fields

    def __len__(self) -> int:
        return len(self._shards)

    @property
    def bytes_per_image(self) -> int:
        """Return the size of a decoded image."""
        return 3 * self._shards.side**2

    def __getitems__(self, positions: Sequence[int]) -> Batch:
        fields = {name: values[positions] for name, values in self._fields.items()}
        return {"pixels": self._shards.decode(positions)} | fields


class AugmentedImages(Images):
    """Images with random changes that differ in every epoch.

    The changes depend only on seed, epoch and position. A resumed training sees the same images as one that was never
    interrupted, regardless of the number of workers. Workers only draw the random numbers: `augment` applies the
    changes on the device.
    """

    def __init__(self, shards: ImageShards, fields: Batch, augmentation: Augmentation, side: int, seed: int) -> None:
        super().__init__(shards, fields)
        self._augmentation = augmentation
        self._side = side
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, counted from 0."""
        self._epoch = epoch

    def __getitems__(self, positions: Sequence[int]) -> Batch:
        return super().__getitems__(positions) | {NUMBERS: draw_numbers(self._seed, self._epoch, positions)}

    def augment(self, batch: Batch) -> Batch:
        """Return a batch with augmented images. Validation batches, which have no numbers, stay unchanged."""
        if NUMBERS not in batch:
            return batch
        rest = {name: values for name, values in batch.items() if name != NUMBERS}
        return rest | {"pixels": augment(batch["pixels"], batch[NUMBERS], self._augmentation, self._side)}


def take_batch(batch: Any) -> Batch:
    """Return a batch that was read as one."""
    taken: Batch = batch
    return taken
