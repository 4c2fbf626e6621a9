"""Random changes that do not change what a photo shows, and the photos of an epoch under them."""

import hashlib

import torch
from torchvision.transforms import v2

from jobs.training.requests import Augmentation


def build_augmentation(augmentation: Augmentation, side: int) -> v2.Transform:
    """A transform of uint8 photos [3, h, w] to random parts of them [3, side, side]."""
    transforms: list[v2.Transform] = [
        v2.RandomHorizontalFlip(),
        v2.RandomResizedCrop(side, scale=(augmentation.smallest_crop, 1.0), ratio=(0.85, 1.18), antialias=True),
    ]
    if augmentation.rotation_degrees:
        transforms.append(
            v2.RandomRotation(augmentation.rotation_degrees, interpolation=v2.InterpolationMode.BILINEAR, fill=127)
        )
    if augmentation.colour_jitter:
        transforms.append(v2.ColorJitter(augmentation.colour_jitter, augmentation.colour_jitter))
    return v2.Compose(transforms)


class Photos(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """Photos with whatever belongs to each, as they are."""

    def __init__(self, pixels: torch.Tensor, fields: dict[str, torch.Tensor]) -> None:
        self._pixels = pixels
        self._fields = fields

    def __len__(self) -> int:
        return len(self._pixels)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"pixels": self._pixels[index]} | {name: values[index] for name, values in self._fields.items()}


class AugmentedPhotos(Photos):
    """Photos that are augmented anew in every epoch.

    How a photo is changed depends on seed, epoch and index alone: a training that resumes sees what it would have
    seen, with any number of workers.
    """

    def __init__(
        self, pixels: torch.Tensor, fields: dict[str, torch.Tensor], transform: v2.Transform, seed: int
    ) -> None:
        super().__init__(pixels, fields)
        self._transform = transform
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Go on to another epoch, counted from 0."""
        self._epoch = epoch

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        item = super().__getitem__(index)
        # Torchvision's transforms draw from the global generator, which others may be using.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(_mix_seed(self._seed, self._epoch, index))
            return item | {"pixels": self._transform(item["pixels"])}


def _mix_seed(*numbers: int) -> int:
    """Torch's generators want seeds whose bits are spread."""
    return int.from_bytes(hashlib.blake2b(repr(numbers).encode(), digest_size=7).digest(), "big")
