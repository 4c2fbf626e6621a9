"""Random changes that do not change what a photo shows; applied to a whole batch at once."""

from dataclasses import dataclass

import torch
from torchvision.transforms import v2


@dataclass(frozen=True)
class Augmentation:
    """How far a photo may be changed: share of its area kept, degrees of rotation, strength of colour jitter."""

    smallest_crop: float = 0.7
    rotation_degrees: float = 10.0
    colour_jitter: float = 0.1

    def build(self, side: int) -> v2.Transform:
        """A transform of uint8 photos [3, h, w] that keeps their size of ``side`` pixels."""
        transforms: list[v2.Transform] = [
            v2.RandomHorizontalFlip(),
            v2.RandomResizedCrop(side, scale=(self.smallest_crop, 1.0), ratio=(0.85, 1.18), antialias=True),
        ]
        if self.rotation_degrees:
            transforms.append(
                v2.RandomRotation(self.rotation_degrees, interpolation=v2.InterpolationMode.BILINEAR, fill=127)
            )
        if self.colour_jitter:
            transforms.append(v2.ColorJitter(self.colour_jitter, self.colour_jitter))
        return v2.Compose(transforms)


class AugmentedPhotos(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """Photos in memory with whatever belongs to each, augmented anew whenever they are asked for."""

    def __init__(self, pixels: torch.Tensor, fields: dict[str, torch.Tensor], transform: v2.Transform) -> None:
        self._pixels = pixels
        self._fields = fields
        self._transform = transform

    def __len__(self) -> int:
        return len(self._pixels)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"pixels": self._transform(self._pixels[index])} | {
            name: values[index] for name, values in self._fields.items()
        }
