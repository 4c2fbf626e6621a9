"""Read the preprocessing of a checkpoint and reproduce it.

`Geometry` is applied to uint8 pixels before batching. Normalization is part of the forward pass, so only bytes are
copied to the device.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from PIL import Image

from jobs.errors import ConfigurationError
from jobs.images.geometry import PILLOW_FILTERS, Geometry
from jobs.models.checkpoint import explain_damage

PILLOW_NAMES = {2: "bilinear", 3: "bicubic"}
MAX_SIDE = 4096
PROBE_SIZES = ((211, 300), (397, 260), (40, 47))
"""Heights and widths of the images on which our preprocessing is compared with the checkpoint's own."""
TOLERATED_LEVELS = 2.5
"""Tolerated difference on a scale of 255. Rounding in our resampling and in torchvision differs by up to 2."""
TOLERATED_SHARE = 0.05
"""Share of values that may differ by more. We resize the two directions in another order, with clipping in between.
This affects at most 2.1 % of the values. A wrong filter, or a crop shifted by one pixel, affects at least 16 %.
"""


@dataclass(frozen=True)
class Preprocessing:
    """A geometry, and the mean and standard deviation per channel on a scale of 0 to 1."""

    geometry: Geometry
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @classmethod
    def from_checkpoint(cls, folder: Path) -> Self:
        """Read the preprocessing of a checkpoint.

        Raises:
            ConfigurationError: there is none, or it cannot be reproduced exactly.
        """
        from transformers import AutoImageProcessor

        with explain_damage(f"the checkpoint {folder.name} has no image preprocessing"):
            processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        with explain_damage(f"the preprocessing of {folder.name} cannot be reproduced"):
            is_timm = hasattr(processor, "data_config")
            preprocessing = cls._from_timm(processor.data_config) if is_timm else cls._from_transformers(processor)
            _require_usual_size(preprocessing.geometry)
            is_reproduced = preprocessing.agrees_with(processor)
        if not is_reproduced:
            raise ConfigurationError(
                f"the preprocessing of {folder.name} ({type(processor).__name__}) does more than resize, crop the "
                "center and normalize the channels, so it cannot be reproduced"
            )
        return preprocessing

    @classmethod
    def _from_timm(cls, config: dict[str, Any]) -> Self:
        side = config["input_size"][-1]
        geometry = Geometry(
            resize_to=int(side / config["crop_pct"]),
            crop_to=side,
            keep_aspect=config["crop_mode"] != "squash",
            interpolation=_require_interpolation(config["interpolation"]),
            crop_rounding="even",
        )
        return cls(geometry, tuple(config["mean"]), tuple(config["std"]))

    @classmethod
    def _from_transformers(cls, processor: Any) -> Self:
        if not processor.image_mean or not processor.image_std:
            raise ConfigurationError("it has no mean and standard deviation of the channels")
        return cls(_read_geometry(processor), _of_channels(processor.image_mean), _of_channels(processor.image_std))

    def agrees_with(self, processor: Any) -> bool:
        """Return whether the checkpoint's own processor gives the same tensors for images of several shapes."""
        return all(self._agrees_on(_make_probe(height, width), processor) for height, width in PROBE_SIZES)

    def _agrees_on(self, pixels: np.ndarray, processor: Any) -> bool:
        ours = self.normalize(self.geometry.apply(pixels)[None], torch.float32)
        theirs = processor(Image.fromarray(pixels), return_tensors="pt")["pixel_values"]
        if ours.shape != theirs.shape:
            return False
        levels = (ours - theirs).abs() * _channel_values(self.std, ours.device) * 255
        return bool((levels <= TOLERATED_LEVELS).float().mean() >= 1 - TOLERATED_SHARE)

    def as_record(self) -> dict[str, Any]:
        """Return the record that is stored with a model version."""
        return asdict(self)

    def normalize(self, pixels: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Scale uint8 pixels [n, 3, h, w] to 0..1 and normalize each channel, on the tensor's device."""
        mean, std = _channel_values(self.mean, pixels.device), _channel_values(self.std, pixels.device)
        return pixels.to(torch.float32).div_(255).sub_(mean).div_(std).to(dtype)


def _of_channels(value: float | Sequence[float]) -> tuple[float, float, float]:
    """Return one value per channel. Some checkpoints have a single value for all channels."""
    values = (value,) if isinstance(value, int | float) else tuple(value)
    if len(values) not in {1, 3}:
        raise ConfigurationError(f"it has {len(values)} means or deviations, but images have three channels")
    red, green, blue = values * 3 if len(values) == 1 else values
    return red, green, blue


@cache
@torch.inference_mode(False)
def _channel_values(values: tuple[float, float, float], device: torch.device) -> torch.Tensor:
    """Return one value per channel as a tensor [1, 3, 1, 1]. Cached, because a copy to a GPU waits for its queue."""
    return torch.tensor(values, device=device).view(1, 3, 1, 1)


def _require_usual_size(geometry: Geometry) -> None:
    if not (0 < geometry.crop_to <= MAX_SIDE and 0 < geometry.resize_to <= MAX_SIDE):
        raise ConfigurationError(
            f"it resizes to {geometry.resize_to} and crops to {geometry.crop_to} pixels: the maximum is {MAX_SIDE}"
        )


def _read_geometry(processor: Any) -> Geometry:
    """Read the geometry from the fields of a Transformers processor."""
    if hasattr(processor, "max_num_patches"):
        raise ConfigurationError(
            "it cuts images of any shape into patches, but only square inputs are supported. Use a checkpoint of a "
            "fixed size, such as google/siglip2-base-patch16-224"
        )
    size = dict(processor.size or {})
    crop = dict(processor.crop_size or {}) if getattr(processor, "do_center_crop", False) else {}
    interpolation = _require_interpolation(PILLOW_NAMES.get(processor.resample, str(processor.resample)))
    edge = size.get("shortest_edge")
    # ConvNextImageProcessor, used by microsoft/resnet-18: below 384 px it resizes to a larger size and crops.
    if edge and hasattr(processor, "crop_pct"):
        is_cropped = edge < 384
        return Geometry(int(edge / processor.crop_pct) if is_cropped else edge, edge, is_cropped, interpolation)
    if edge and crop:
        return Geometry(edge, crop["height"], True, interpolation)
    if size.keys() == {"height", "width"} and size["height"] == size["width"]:
        return Geometry(size["height"], crop["height"] if crop else size["height"], False, interpolation)
    raise ConfigurationError(f"it resizes to {size} and crops to {crop}: only square inputs are supported")


def _require_interpolation(name: str) -> str:
    if name not in PILLOW_FILTERS:
        raise ConfigurationError(f"it resizes by {name}: only bilinear and bicubic are supported")
    return name


def _make_probe(height: int, width: int) -> np.ndarray:
    """Return an image of random blocks of 8 pixels, on which any shift or wrong filter makes a difference."""
    blocks = np.random.default_rng(0).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    return blocks.repeat(8, axis=0).repeat(8, axis=1)[:height, :width]
