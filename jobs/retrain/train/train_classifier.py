"""Train an image classifier on a snapshot, from any checkpoint that Transformers can load."""

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
from jobs.retrain.evaluate.artifact_check import ReferenceOutputs, choose_reference_images, write_reference_outputs
from jobs.retrain.snapshot.image_shards import ImageShards
from jobs.retrain.snapshot.snapshot_file import Split
from jobs.retrain.train.context import TrainedModel, TrainingContext, copy_preprocessing, write_weights
from jobs.retrain.train.epochs import count_processes
from jobs.retrain.train.layers import compute_features, find_head, fit_best_head, freeze_early_layers
from jobs.retrain.train.loop import BatchResult, TrainingTask, train
from jobs.retrain.train.requests import ClassifierTraining
from jobs.retrain.train.training_images import AugmentedImages, Images
from jobs.retrain.train.whole_images import enlarge, read_whole_images, write_whole_images


def fit_temperature(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """Return the temperature that minimizes the cross entropy of logits [n, categories] / temperature with labels [n].

    Uses the method of Guo et al. 2017, "On Calibration of Modern Neural Networks".
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
    # Without limits, a model that gets every image right would get a temperature near 0.
    return float(log_temperature.exp().clamp(0.05, 20.0).item())


log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Part:
    """Images and their category numbers [n]."""

    images: ImageShards
    labels: torch.Tensor


def train_classifier(request: ClassifierTraining, context: TrainingContext) -> TrainedModel:
    """Train on the train images. The validation images choose the best epoch and the regularization.

    Raises:
        RefusedError: the base is not an image classifier, or the snapshot has fewer than two categories.
    """
    categories = context.snapshot.categories
    if len(categories) < 2:
        raise RefusedError(
            f"a classifier needs at least two categories, but the snapshot has {list(categories)}: label more products "
            "and take a new snapshot"
        )
    rows, _ = context.require_rows("train"), context.require_rows("validation")
    torch.manual_seed(request.hyperparameters.seed)
    model = _load_base(request.base, categories)
    log.info(
        "classifier: training on %d images of %d categories, from %s", len(rows), len(categories), request.base.name
    )
    if request.freeze == "backbone":
        return _fit_new_head(model, request, context)
    return _fine_tune(model, request, context)


def save_classifier(
    model: Any, request: ClassifierTraining, context: TrainingContext, folder: Path
) -> dict[str, float]:
    """Write the checkpoint, calibrated on the validation images, with its reference outputs. Return its metrics."""
    write_weights(model, folder)
    if request.freeze == "backbone":
        copy_preprocessing(request.base, folder)
    else:
        write_whole_images(request.base, folder)
    preprocessing = Preprocessing.from_checkpoint(folder)
    part = _load_part("validation", preprocessing.geometry, context)
    probabilities = context.predict(folder, "classifier", part.images)
    # Logits up to a constant per image, which does not affect the temperature.
    logits = torch.from_numpy(probabilities).clamp(min=1e-30).log()
    temperature = fit_temperature(logits, part.labels)
    write_temperature(folder, temperature)
    _write_reference(model, preprocessing, temperature, context, folder)
    hits = logits.topk(min(3, logits.shape[1])).indices == part.labels[:, None]
    return {
        "validation_images": len(part.labels),
        "validation_accuracy": round(hits[:, 0].float().mean().item(), 4),
        "validation_top_3_accuracy": round(hits.any(1).float().mean().item(), 4),
        "validation_loss": round(functional.cross_entropy(logits / temperature, part.labels).item(), 4),
        "temperature": round(temperature, 4),
    }


def _write_reference(
    model: Any, preprocessing: Preprocessing, temperature: float, context: TrainingContext, folder: Path
) -> None:
    rows, categories = choose_reference_images(context.require_rows("validation")), context.snapshot.categories
    pixels = context.images.load_pixels(rows, preprocessing.geometry)
    with torch.inference_mode():
        logits = model(pixel_values=preprocessing.normalize(pixels, torch.float32)).logits
    outputs: dict[str, dict[str, float] | list[float]] = {
        row.content_hash: dict(zip(categories, probabilities, strict=True))
        for row, probabilities in zip(rows, (logits / temperature).softmax(-1).tolist(), strict=True)
    }
    write_reference_outputs(folder, ReferenceOutputs("classifier", outputs))


def _load_base(base: Path, categories: Sequence[str]) -> Any:
    from transformers import AutoModelForImageClassification

    model = load_model(
        AutoModelForImageClassification,
        base,
        torch.float32,
        name_new_module=lambda model: find_head(model)[0],
        num_labels=len(categories),
        id2label=dict(enumerate(categories)),
        label2id={category: index for index, category in enumerate(categories)},
        ignore_mismatched_sizes=True,
    )
    require_numbers(model, base)
    # Timm checkpoints store the category names twice. Replace the second copy too.
    if hasattr(model.config, "label_names"):
        model.config.label_names = list(categories)
    return model


def _load_part(split: Split, geometry: Geometry, context: TrainingContext) -> _Part:
    rows = context.require_rows(split)
    numbers = {category: number for number, category in enumerate(context.snapshot.categories)}
    labels = torch.tensor([numbers[row.category] for row in rows])
    return _Part(context.load_shards(rows, geometry), labels)


def _fit_new_head(model: Any, request: ClassifierTraining, context: TrainingContext) -> TrainedModel:
    """Fit a head on the features of each train image and its mirror image, which are computed only once."""
    # A frozen backbone needs the preprocessing it was trained with.
    preprocessing = Preprocessing.from_checkpoint(request.base)
    train_part, validation_part = (
        _load_part(split, preprocessing.geometry, context) for split in ("train", "validation")
    )
    name, head = find_head(model)
    model.set_submodule(name, nn.Identity())
    plain, mirrored, validation = (
        compute_features(model, preprocessing, images, context, is_mirrored)
        for images, is_mirrored in (
            (train_part.images, False),
            (train_part.images, True),
            (validation_part.images, False),
        )
    )
    model.set_submodule(name, head)
    context.progress.report("fitting the head")
    weight_decay = fit_best_head(
        head,
        (torch.cat([plain, mirrored]), train_part.labels.repeat(2)),
        (validation, validation_part.labels),
        _compute_class_weights(train_part.labels, model.config.num_labels),
    )
    log.info("classifier: fitted a new head with weight decay %g", weight_decay)
    return TrainedModel(model, metrics={"head_weight_decay": weight_decay})


def _fine_tune(model: Any, request: ClassifierTraining, context: TrainingContext) -> TrainedModel:
    preprocessing = read_whole_images(request.base)
    train_part = _load_part("train", enlarge(preprocessing.geometry), context)
    validation_part = _load_part("validation", preprocessing.geometry, context)
    weights = _compute_class_weights(train_part.labels, model.config.num_labels).to(context.device.torch_device)

    def compute_result(model: Any, batch: dict[str, torch.Tensor]) -> BatchResult:
        inputs = preprocessing.normalize(batch["pixels"], torch.float32)
        logits = model(pixel_values=inputs.contiguous(memory_format=torch.channels_last)).logits.float()
        labels = batch["labels"]
        loss = (
            functional.cross_entropy(logits, labels, weights, label_smoothing=request.label_smoothing)
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
    hyperparameters = request.hyperparameters.fit_batch_size(len(train_part.images) // count_processes())
    images = AugmentedImages(
        train_part.images, {"labels": train_part.labels}, request.augmentation, side, hyperparameters.seed
    )
    validation = Images(validation_part.images, {"labels": validation_part.labels})
    task = TrainingTask("classifier", images, validation, compute_result, frozen=frozen)
    result = train(model, task, hyperparameters, context.device, context.folder, context.progress)
    return TrainedModel(model, result.history, result.images_per_second)


def _compute_class_weights(labels: torch.Tensor, categories: int) -> torch.Tensor:
    """Weigh categories by the inverse square root of their frequency, scaled to a mean of 1 over the images."""
    frequency = torch.bincount(labels, minlength=categories)
    weights = frequency.clamp(min=1).rsqrt()
    return weights * len(labels) / (weights * frequency).sum()
