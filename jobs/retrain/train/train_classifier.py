"""Train an image classifier on a snapshot, from any checkpoint that Transformers loads."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from jobs.errors import RefusedError
from jobs.images.geometry import Geometry
from jobs.models.checkpoint import load_model, require_numbers
from jobs.models.classifier import write_temperature
from jobs.models.preprocessing import Preprocessing
from jobs.retrain.evaluate.servable import ReferenceOutputs, choose_reference_photos, write_reference_outputs
from jobs.retrain.snapshot.snapshot_file import SnapshotRow
from jobs.retrain.train.augmentation import (
    AugmentedPhotos,
    Photos,
    build_augmentation,
    enlarge,
    read_whole_photos,
    write_whole_photos,
)
from jobs.retrain.train.context import TrainedModel, TrainingContext, copy_preprocessing, write_weights
from jobs.retrain.train.forward import ask_checkpoint, compute_outputs
from jobs.retrain.train.freezing import freeze_early_layers
from jobs.retrain.train.linear_head import find_head, fit_best_head
from jobs.retrain.train.loop import BatchResult, TrainingTask, train
from jobs.retrain.train.requests import ClassifierTraining


def fit_temperature(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """The temperature by which logits [n, categories] are divided for the least cross entropy with labels [n].

    On validation images, by the method of Guo et al. 2017, "On Calibration of Modern Neural Networks".
    """
    log_temperature = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([log_temperature], max_iter=100, line_search_fn="strong_wolfe")
    exact = logits.double()

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = functional.cross_entropy(exact / log_temperature.exp(), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    # A model that is right on every image would be made ever surer.
    return float(log_temperature.exp().clamp(0.05, 20.0).item())


log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Part:
    """Photos uint8 [n, 3, side, side] with their categories as numbers [n]."""

    pixels: torch.Tensor
    labels: torch.Tensor


def train_classifier(request: ClassifierTraining, context: TrainingContext) -> TrainedModel:
    """Train on the train photos; the validation photos say when to stop and how much to regularise.

    Raises:
        RefusedError: the base is no image classifier, or the snapshot shows fewer than two categories.
    """
    categories = context.snapshot.categories
    if len(categories) < 2:
        raise RefusedError(f"a classifier needs at least two categories, the snapshot has {list(categories)}")
    rows, validation_rows = context.require_rows("train"), context.require_rows("validation")
    torch.manual_seed(request.settings.seed)
    model = _load_base(request.base, categories)

    def load(rows: Sequence[SnapshotRow], geometry: Geometry) -> _Part:
        return _Part(context.photos.load_pixels(rows, geometry), _number_labels(rows, categories))

    log.info("classifier: %d photos of %d categories, from %s", len(rows), len(categories), request.base.name)
    if request.freeze == "backbone":
        # What stays as it is sees photos as it was trained on.
        own = Preprocessing.from_checkpoint(request.base)
        return _replace_head(model, own, load(rows, own.geometry), load(validation_rows, own.geometry), context)
    whole = read_whole_photos(request.base)
    train_part, validation_part = load(rows, enlarge(whole.geometry)), load(validation_rows, whole.geometry)
    return _fine_tune(model, whole, train_part, validation_part, request, context)


def save_classifier(
    model: Any, request: ClassifierTraining, context: TrainingContext, folder: Path
) -> dict[str, float]:
    """Write the checkpoint, calibrated on the validation photos, with its reference outputs; returns its metrics."""
    write_weights(model, folder)
    if request.freeze == "backbone":
        copy_preprocessing(request.base, folder)
    else:
        write_whole_photos(request.base, folder)
    preprocessing = Preprocessing.from_checkpoint(folder)
    rows, categories = context.require_rows("validation"), context.snapshot.categories
    labels = _number_labels(rows, categories)
    probabilities = ask_checkpoint(
        folder,
        "classifier",
        context.photos.load_pixels(rows, preprocessing.geometry),
        context.device,
        context.progress,
    )
    # Logits but for a constant of each photo, which no temperature sees.
    logits = torch.from_numpy(probabilities).clamp(min=1e-30).log()
    temperature = fit_temperature(logits, labels)
    write_temperature(folder, temperature)
    _write_reference(model, preprocessing, temperature, context, folder)
    hits = logits.topk(min(3, len(categories))).indices == labels[:, None]
    return {
        "validation_images": len(rows),
        "validation_accuracy": round(hits[:, 0].float().mean().item(), 4),
        "validation_top_3_accuracy": round(hits.any(1).float().mean().item(), 4),
        "validation_loss": round(functional.cross_entropy(logits / temperature, labels).item(), 4),
        "temperature": round(temperature, 4),
    }


def _write_reference(
    model: Any, preprocessing: Preprocessing, temperature: float, context: TrainingContext, folder: Path
) -> None:
    rows, categories = choose_reference_photos(context.require_rows("validation")), context.snapshot.categories
    pixels = context.photos.load_pixels(rows, preprocessing.geometry)
    with torch.inference_mode():
        logits = model(pixel_values=preprocessing.normalize(pixels, torch.float32)).logits
    outputs: dict[str, dict[str, float] | list[float]] = {
        row.content_hash: dict(zip(categories, answer, strict=True))
        for row, answer in zip(rows, (logits / temperature).softmax(-1).tolist(), strict=True)
    }
    write_reference_outputs(folder, ReferenceOutputs("classifier", outputs))


def _load_base(base: Path, categories: Sequence[str]) -> Any:
    from transformers import AutoModelForImageClassification

    model = load_model(
        AutoModelForImageClassification,
        base,
        torch.float32,
        name_new_part=lambda model: find_head(model)[0],
        num_labels=len(categories),
        id2label=dict(enumerate(categories)),
        label2id={category: index for index, category in enumerate(categories)},
        ignore_mismatched_sizes=True,
    )
    require_numbers(model, base)
    # Checkpoints of Timm hold the names a second time, and would be saved with those of the base.
    if hasattr(model.config, "label_names"):
        model.config.label_names = list(categories)
    return model


def _number_labels(rows: Sequence[SnapshotRow], categories: Sequence[str]) -> torch.Tensor:
    numbers = {category: number for number, category in enumerate(categories)}
    return torch.tensor([numbers[row.category] for row in rows])


def _fine_tune(
    model: Any,
    preprocessing: Preprocessing,
    train_part: _Part,
    validation_part: _Part,
    request: ClassifierTraining,
    context: TrainingContext,
) -> TrainedModel:
    weights = _class_weights(train_part.labels, model.config.num_labels)

    def ask(model: Any, batch: dict[str, torch.Tensor]) -> BatchResult:
        inputs = preprocessing.normalize(batch["pixels"], torch.float32)
        logits = model(pixel_values=inputs.contiguous(memory_format=torch.channels_last)).logits.float()
        labels = batch["labels"]
        loss = (
            functional.cross_entropy(logits, labels, weights.to(logits.device), label_smoothing=request.label_smoothing)
            if model.training
            else functional.cross_entropy(logits, labels)
        )
        return BatchResult(loss, logits.argmax(1) == labels)

    side = preprocessing.geometry.crop_to
    frozen = (
        freeze_early_layers(model, lambda: model(pixel_values=torch.zeros(1, 3, side, side)))
        if request.freeze == "early"
        else ()
    )
    model.to(memory_format=torch.channels_last)
    augmentation = build_augmentation(request.augmentation, side)
    photos = AugmentedPhotos(train_part.pixels, {"labels": train_part.labels}, augmentation, request.settings.seed)
    validation = Photos(validation_part.pixels, {"labels": validation_part.labels})
    task = TrainingTask("classifier", photos, validation, ask, frozen=frozen)
    trained = train(model, task, request.settings, context.device, context.folder, context.progress)
    return TrainedModel(model, trained.history, trained.images_per_second)


def _class_weights(labels: torch.Tensor, categories: int) -> torch.Tensor:
    """Inverse square root of the frequency, with a mean of 1 over the photos: rare categories count for more."""
    frequency = torch.bincount(labels, minlength=categories)
    weights = frequency.clamp(min=1).rsqrt()
    return weights * len(labels) / (weights * frequency).sum()


def _replace_head(
    model: Any, preprocessing: Preprocessing, train_part: _Part, validation_part: _Part, context: TrainingContext
) -> TrainedModel:
    """Fit a head on features that are computed once, of each photo as it is and mirrored."""
    name, head = find_head(model)
    model.set_submodule(name, nn.Identity())
    plain, mirrored, validation = (
        compute_outputs(model, preprocessing, pixels, context.device, context.progress)
        for pixels in (train_part.pixels, train_part.pixels.flip(3), validation_part.pixels)
    )
    model.set_submodule(name, head)
    context.progress.report("fitting the head")
    weight_decay = fit_best_head(
        head,
        (torch.cat([plain, mirrored]), train_part.labels.repeat(2)),
        (validation, validation_part.labels),
        _class_weights(train_part.labels, model.config.num_labels),
    )
    log.info("classifier: a new head with a weight decay of %g", weight_decay)
    return TrainedModel(model, (), None, {"head_weight_decay": weight_decay})
