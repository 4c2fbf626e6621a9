"""Train a CLIP-like encoder on images and their texts, from any checkpoint that Transformers can load."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from jobs.models.checkpoint import require_numbers
from jobs.models.encoder import load_text_encoder, load_tokenizer, load_towers, tokenize
from jobs.models.preprocessing import Preprocessing
from jobs.retrain.evaluate.artifact_check import ReferenceOutputs, choose_reference_images, write_reference_outputs
from jobs.retrain.evaluate.evaluation_record import EncoderScores
from jobs.retrain.evaluate.scores import score_encoder
from jobs.retrain.evaluate.served_model import map_batches
from jobs.retrain.snapshot.image_shards import ImageShards
from jobs.retrain.snapshot.snapshot_file import SnapshotRow
from jobs.retrain.train.context import TrainedModel, TrainingContext, keep_threads, write_encoder
from jobs.retrain.train.epochs import count_processes
from jobs.retrain.train.hard_negatives import HardNegativeOrder, Item
from jobs.retrain.train.layers import freeze_early_layers
from jobs.retrain.train.loop import BatchResult, Objective, TrainingTask, train
from jobs.retrain.train.requests import EncoderTraining, Hyperparameters
from jobs.retrain.train.training_images import AugmentedImages, Images

log = logging.getLogger(__name__)

TRAIN_SAMPLE = 1000
TOKENS = ("input_ids", "attention_mask")


def train_encoder(request: EncoderTraining, context: TrainingContext) -> TrainedModel:
    """Train on the train images that have a text. The validation images choose the best epoch.

    Raises:
        PermanentError: the base has no image and text features, or no image has a text.
    """
    torch.manual_seed(request.hyperparameters.seed)
    model = load_towers(request.base, torch.float32).to(memory_format=torch.channels_last)
    require_numbers(model, request.base)
    if not request.hyperparameters.epochs:
        return TrainedModel(model)
    rows, validation_rows = context.require_rows("train", True), context.require_rows("validation", True)
    preprocessing = Preprocessing.from_checkpoint(request.base)
    images, validation_images = (context.load_shards(part, preprocessing.geometry) for part in (rows, validation_rows))
    hyperparameters = request.hyperparameters.fit_batch_size(len(rows) // count_processes())
    categories = context.snapshot.categories
    *tokens, names = _tokenize(load_tokenizer(request.base), model, (rows, validation_rows), categories)
    fields, validation_fields = (
        part_tokens | {"labels": torch.tensor([categories.index(row.category) for row in part])}
        for part_tokens, part in zip(tokens, (rows, validation_rows), strict=True)
    )
    log.info("encoder: training on %d images with texts, from %s", len(rows), request.base.name)
    order = (
        _order_by_hard_negatives(request, hyperparameters, rows, images, context)
        if request.mine_hard_negatives
        else None
    )
    side = preprocessing.geometry.crop_to
    task = TrainingTask(
        "encoder",
        AugmentedImages(images, fields, request.augmentation, side, hyperparameters.seed),
        Images(validation_images, validation_fields),
        _make_objective(preprocessing, names, request.category_weight),
        order=order,
        frozen=_freeze_early(model, preprocessing, fields) if request.freeze_early else (),
    )
    result = train(model, task, hyperparameters, context.device, context.folder, context.progress)
    return TrainedModel(model, result.history, result.images_per_second)


def save_encoder(model: Any, request: EncoderTraining, context: TrainingContext, folder: Path) -> dict[str, float]:
    """Write the checkpoint with its reference outputs. Return metrics on validation and a sample of train."""
    write_encoder(model, request.base, folder)
    preprocessing = Preprocessing.from_checkpoint(request.base)
    _write_reference(model, preprocessing, context, folder)
    metrics: dict[str, float] = {}
    for split in ("train", "validation"):
        rows = [row for row in context.snapshot.part(split) if row.full_text][:TRAIN_SAMPLE]
        if rows:
            metrics |= _name_metrics(split, _measure(folder, preprocessing, rows, context))
    return metrics


def contrastive_loss(
    images: torch.Tensor, texts: torch.Tensor, scale: torch.Tensor, tokens: torch.Tensor
) -> torch.Tensor:
    """Compute the symmetric contrastive loss of CLIP (Radford et al. 2021) on unit vectors [n, dimensions].

    Texts with the same ``tokens`` [n, length] are interchangeable: each counts as correct for all of their images.
    """
    logits = scale * images @ texts.T
    same = _find_same(tokens).float()
    targets = same / same.sum(1, keepdim=True)
    return (functional.cross_entropy(logits, targets) + functional.cross_entropy(logits.T, targets)) / 2


def _find_same(tokens: torch.Tensor) -> torch.Tensor:
    return (tokens[:, None] == tokens[None]).all(-1)


def _make_objective(preprocessing: Preprocessing, names: dict[str, torch.Tensor], category_weight: float) -> Objective:
    def compute_result(model: Any, batch: dict[str, torch.Tensor]) -> BatchResult:
        labels, count = batch["labels"], len(batch["labels"])
        tokens = {name: batch[name] for name in names}
        if category_weight:
            # Embed the names of the categories together with the texts, in one pass.
            tokens = {name: torch.cat([values, names[name].to(labels.device)]) for name, values in tokens.items()}
        inputs = preprocessing.normalize(batch["pixels"], torch.float32).contiguous(memory_format=torch.channels_last)
        outputs = model(pixel_values=inputs, **tokens)
        with torch.autocast(labels.device.type, enabled=False):
            images = functional.normalize(outputs.image_embeds.float(), dim=-1)
            texts = functional.normalize(outputs.text_embeds.float(), dim=-1)
            scale = model.logit_scale.exp()
            loss = contrastive_loss(images, texts[:count], scale, batch["input_ids"])
            if category_weight:
                loss = loss + category_weight * functional.cross_entropy(scale * images @ texts[count:].T, labels)
        best = (images @ texts[:count].T).argmax(1)
        return BatchResult(loss, _find_same(batch["input_ids"])[torch.arange(count), best])

    return compute_result


def _tokenize(
    tokenizer: Any, model: Any, parts: Sequence[Sequence[SnapshotRow]], categories: Sequence[str]
) -> list[dict[str, torch.Tensor]]:
    """Tokenize the texts of each part, then the categories, all to the same length so that batches can combine them."""
    texts = [*([row.full_text for row in rows] for rows in parts), categories]
    tokens = tokenize(tokenizer, model, [text for part in texts for text in part])
    lengths = [len(part) for part in texts]
    kept = {name: torch.split(tokens[name], lengths) for name in TOKENS if name in tokens}
    return [{name: values[index] for name, values in kept.items()} for index in range(len(texts))]


def _freeze_early(model: Any, preprocessing: Preprocessing, fields: dict[str, torch.Tensor]) -> list[nn.Module]:
    side = preprocessing.geometry.crop_to
    tokens = {name: values[:1] for name, values in fields.items() if name != "labels"}
    return [
        *freeze_early_layers(model, lambda: model.get_image_features(pixel_values=torch.zeros(1, 3, side, side))),
        *freeze_early_layers(model, lambda: model.get_text_features(**tokens)),
    ]


def _order_by_hard_negatives(
    request: EncoderTraining,
    hyperparameters: Hyperparameters,
    rows: Sequence[SnapshotRow],
    images: ImageShards,
    context: TrainingContext,
) -> HardNegativeOrder:
    log.info("encoder: mining hard negatives with the base")
    vectors = context.predict(request.base, "encoder", images)
    items = [Item(row.group_name, row.category, row.full_text) for row in rows]
    return HardNegativeOrder(items, vectors, hyperparameters.batch_size, hyperparameters.seed)


def _measure(
    folder: Path, preprocessing: Preprocessing, rows: Sequence[SnapshotRow], context: TrainingContext
) -> EncoderScores:
    texts = [row.full_text for row in rows]
    images = context.load_shards(rows, preprocessing.geometry)
    image_vectors = context.predict(folder, "encoder", images)
    encoder = load_text_encoder(folder, context.device)
    with keep_threads():
        text_vectors: np.ndarray = map_batches(encoder.embed, texts, context.device)
    return score_encoder(image_vectors, text_vectors, texts, float(encoder.model.logit_scale.detach().exp())).scores


def _name_metrics(split: str, scores: EncoderScores) -> dict[str, float]:
    measured = {
        "loss": scores.loss,
        "clip_score": scores.clip_score,
        "in_batch_accuracy": scores.in_batch_accuracy,
        "recall_at_10": scores.recall_at_10,
    }
    return {f"{split}_images": scores.images} | {
        f"{split}_{name}": round(value, 4) for name, value in measured.items() if value is not None
    }


def _write_reference(model: Any, preprocessing: Preprocessing, context: TrainingContext, folder: Path) -> None:
    rows = choose_reference_images(context.require_rows("validation"))
    pixels = context.images.load_pixels(rows, preprocessing.geometry)
    with torch.inference_mode():
        features = model.get_image_features(pixel_values=preprocessing.normalize(pixels, torch.float32)).pooler_output
    vectors = functional.normalize(features, dim=-1).tolist()
    outputs: dict[str, dict[str, float] | list[float]] = {
        row.content_hash: vector for row, vector in zip(rows, vectors, strict=True)
    }
    write_reference_outputs(folder, ReferenceOutputs("encoder", outputs))
