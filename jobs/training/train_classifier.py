"""Train an image classifier on labelled photos, from any checkpoint that Transformers loads."""

import logging
import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional

from jobs.errors import PermanentError
from jobs.models.checkpoint import LOADING_FAULTS, first_line
from jobs.models.device import Device, choose_device
from jobs.models.preprocessing import Preprocessing
from jobs.training.augmentation import Augmentation, AugmentedPhotos
from jobs.training.labelled_photos import LabelledPhoto, Split, load_pixels
from jobs.training.linear_head import find_head, fit_head
from jobs.training.loop import TrainingSettings, train

log = logging.getLogger(__name__)

Freeze = Literal["backbone", "nothing"]
FORWARD_BATCH = 32


@dataclass(frozen=True)
class ClassifierTraining:
    """``freeze="backbone"`` computes each photo's features once and fits only the head."""

    freeze: Freeze
    settings: TrainingSettings
    augmentation: Augmentation = field(default_factory=Augmentation)
    label_smoothing: float = 0.1


def train_classifier(base: Path, split: Split, training: ClassifierTraining, output: Path) -> dict[str, float]:
    """Train from the checkpoint ``base`` and save to ``output``; returns metrics on the held-back photos.

    Raises:
        PermanentError: the base is no image classifier, or the photos show fewer than two categories.
    """
    categories = sorted({photo.category for photo in split.train + split.test})
    if len(categories) < 2:
        raise PermanentError(f"a classifier needs at least two categories, the photos show {categories}")
    if not split.test:
        raise PermanentError("too few groups of photos to hold some back: label more products")
    torch.manual_seed(training.settings.seed)
    model = _load_base(base, categories)
    preprocessing = Preprocessing.from_checkpoint(base)
    train_part, test_part = (
        (load_pixels(photos, preprocessing.geometry, len(os.sched_getaffinity(0))), _labels(photos, categories))
        for photos in (split.train, split.test)
    )
    log.info("training on %d photos of %d categories from %s", len(split.train), len(categories), base.name)
    device = choose_device("auto", "auto")
    if training.freeze == "backbone":
        metrics = _replace_head(model, preprocessing, train_part, test_part, device)
    else:
        _fine_tune(model, preprocessing, *train_part, training)
        metrics = _measure(_forward_all(model, preprocessing, test_part[0], device), test_part[1])
    _save(model, base, output)
    return metrics


def _load_base(base: Path, categories: Sequence[str]) -> Any:
    from transformers import AutoModelForImageClassification

    try:
        model = AutoModelForImageClassification.from_pretrained(
            base,
            local_files_only=True,
            use_safetensors=True,
            num_labels=len(categories),
            id2label=dict(enumerate(categories)),
            label2id={category: index for index, category in enumerate(categories)},
            ignore_mismatched_sizes=True,
            dtype=torch.float32,
        )
    except LOADING_FAULTS as error:
        raise PermanentError(f"{base} holds no image classifier: {first_line(error)}") from None
    # Checkpoints of Timm hold the names a second time, and would be saved with those of the base.
    if hasattr(model.config, "label_names"):
        model.config.label_names = list(categories)
    return model


def _labels(photos: Sequence[LabelledPhoto], categories: Sequence[str]) -> torch.Tensor:
    return torch.tensor([categories.index(photo.category) for photo in photos])


def _fine_tune(
    model: Any, preprocessing: Preprocessing, pixels: torch.Tensor, labels: torch.Tensor, training: ClassifierTraining
) -> None:
    photos = AugmentedPhotos(pixels, {"labels": labels}, training.augmentation.build(preprocessing.geometry.crop_to))
    weights = _class_weights(labels, model.config.num_labels)

    def loss(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        inputs = preprocessing.normalise(batch["pixels"], torch.float32)
        logits = model(pixel_values=inputs.contiguous(memory_format=torch.channels_last)).logits
        return functional.cross_entropy(
            logits.float(), batch["labels"], weights.to(logits.device), label_smoothing=training.label_smoothing
        )

    model.to(memory_format=torch.channels_last)
    with tempfile.TemporaryDirectory() as scratch:
        train("classifier", model, photos, loss, training.settings, Path(scratch))


def _class_weights(labels: torch.Tensor, categories: int) -> torch.Tensor:
    """Inverse square root of the frequency, with a mean of 1 over the photos: rare categories count for more."""
    frequency = torch.bincount(labels, minlength=categories)
    weights = frequency.clamp(min=1).rsqrt()
    return weights * len(labels) / (weights * frequency).sum()


def _replace_head(
    model: Any,
    preprocessing: Preprocessing,
    train: tuple[torch.Tensor, torch.Tensor],
    test: tuple[torch.Tensor, torch.Tensor],
    device: Device,
) -> dict[str, float]:
    """Measure a head fitted on the photos to train on, then fit it on all, for every photo counts.

    Each photo is seen as it is and mirrored.
    """
    name, head = find_head(model)
    model.set_submodule(name, nn.Identity())
    train_features, test_features = (
        torch.cat([_forward_all(model, preprocessing, view, device) for view in (pixels, pixels.flip(3))])
        for pixels in (train[0], test[0])
    )
    model.set_submodule(name, head.cpu())
    fit_head(head, train_features, train[1].repeat(2))
    with torch.inference_mode():
        metrics = _measure(head(test_features[: len(test[1])]), test[1])
    fit_head(head, torch.cat([train_features, test_features]), torch.cat([train[1].repeat(2), test[1].repeat(2)]))
    return metrics


def _forward_all(model: Any, preprocessing: Preprocessing, pixels: torch.Tensor, device: Device) -> torch.Tensor:
    """The outputs for all photos, float32 on the CPU; there, one single-threaded pass for each core."""
    model.eval().to(device.torch_device, memory_format=torch.channels_last)
    workers = 1 if device.is_cuda else len(os.sched_getaffinity(0))
    threads = torch.get_num_threads()

    def forward(part: torch.Tensor) -> torch.Tensor:
        inputs = preprocessing.normalise(part.to(device.torch_device), torch.float32)
        with (
            torch.inference_mode(),
            torch.autocast(device.torch_device.type, device.dtype, enabled=device.dtype is not torch.float32),
        ):
            outputs: torch.Tensor = model(pixel_values=inputs.contiguous(memory_format=torch.channels_last)).logits
        return outputs.float().cpu()

    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(workers) as pool:
            return torch.cat(list(pool.map(forward, torch.split(pixels, FORWARD_BATCH))))
    finally:
        torch.set_num_threads(threads)


def _measure(logits: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    hits = logits.topk(min(3, logits.shape[1])).indices == labels[:, None]
    return {
        "test_photos": len(labels),
        "accuracy": round(hits[:, 0].float().mean().item(), 4),
        "top_3_accuracy": round(hits.any(1).float().mean().item(), 4),
    }


def _save(model: Any, base: Path, output: Path) -> None:
    """Write the checkpoint with the base's own preprocessing beside it."""
    from transformers import AutoImageProcessor

    model.float().cpu().save_pretrained(output)
    AutoImageProcessor.from_pretrained(base, local_files_only=True).save_pretrained(output)
