"""Load Transformers image classifiers, and compute probabilities with them."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, Field, ValidationError

from jobs.errors import ConfigurationError
from jobs.models.checkpoint import load_model
from jobs.models.device import Device
from jobs.models.preprocessing import Preprocessing

CALIBRATION_FILE = "calibration.json"
UNCALIBRATED = 1.0


class _Calibration(BaseModel):
    """The content of the calibration file."""

    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)]


@dataclass(frozen=True)
class Classifier:
    """A loaded classifier. ``categories`` are in the order of its outputs.

    Logits are divided by ``temperature``, which calibrates the confidences: 8 of 10 tags with confidence 0.8 are right.
    """

    model: Any
    preprocessing: Preprocessing
    categories: tuple[str, ...]
    device: Device
    temperature: float = UNCALIBRATED

    @torch.no_grad()
    def predict(self, pixels: torch.Tensor) -> torch.Tensor:
        """Turn uint8 pixels [n, 3, h, w] on the device into float32 probabilities [n, categories]."""
        inputs = self.preprocessing.normalize(pixels, self.device.dtype).contiguous(memory_format=torch.channels_last)
        logits: torch.Tensor = self.model(pixel_values=inputs).logits
        return (logits.float() / self.temperature).softmax(dim=-1)


def load_classifier(folder: Path, device: Device) -> Classifier:
    """Load a checkpoint for inference.

    Raises:
        ConfigurationError: the folder holds no image classifier with named categories.
    """
    from transformers import AutoModelForImageClassification

    model = load_model(AutoModelForImageClassification, folder, device.dtype)
    model = model.eval().to(device.torch_device, memory_format=torch.channels_last)
    temperature = read_temperature(folder) or UNCALIBRATED
    return Classifier(model, Preprocessing.from_checkpoint(folder), _categories(model.config), device, temperature)


def read_categories(folder: Path) -> tuple[str, ...]:
    """Read the categories of a checkpoint from its configuration, in the order of its outputs."""
    from transformers import AutoConfig

    return _categories(AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False))


def write_temperature(folder: Path, temperature: float) -> None:
    """Write the temperature to a checkpoint."""
    (folder / CALIBRATION_FILE).write_text(json.dumps({"temperature": temperature}), encoding="utf-8")


def read_temperature(folder: Path) -> float | None:
    """Return the temperature of a checkpoint, or None if it was never calibrated.

    Raises:
        ConfigurationError: the calibration file contains no positive number.
    """
    file = folder / CALIBRATION_FILE
    try:
        return _Calibration.model_validate_json(file.read_bytes()).temperature if file.is_file() else None
    except ValidationError:
        raise ConfigurationError(
            f'{file} must contain {{"temperature": NUMBER}} with a positive number. Train again'
        ) from None


def _categories(config: Any) -> tuple[str, ...]:
    return tuple(config.id2label[index] for index in range(len(config.id2label)))
