"""Train a CLIP-like encoder on photos and their texts, from any checkpoint that Transformers loads."""

import logging
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from jobs.models.device import choose_device
from jobs.models.encoder import load_tokenizer, load_towers
from jobs.models.preprocessing import Preprocessing
from jobs.training.augmentation import Augmentation, AugmentedPhotos
from jobs.training.labelled_photos import Split, load_pixels
from jobs.training.loop import TrainingSettings, train

log = logging.getLogger(__name__)

EVALUATION_BATCH = 64


@dataclass(frozen=True)
class EncoderTraining:
    """How an encoder is trained.

    ``category_weight`` is the weight of telling the categories apart by their names, beside that of the texts, 1.
    Texts alone teach an encoder without weights little but colour: few others in a batch share a photo's colour
    and pattern, so that its shape is seldom needed to tell them apart.
    """

    settings: TrainingSettings
    augmentation: Augmentation = field(default_factory=Augmentation)
    category_weight: float = 0.0


def train_encoder(base: Path, split: Split, training: EncoderTraining, output: Path) -> dict[str, float]:
    """Train from the checkpoint ``base`` and save to ``output``; returns metrics on the held-back photos.

    Raises:
        PermanentError: the base has no image and text features.
    """
    torch.manual_seed(training.settings.seed)
    model = load_towers(base, torch.float32)
    tokenizer = load_tokenizer(base)
    preprocessing = Preprocessing.from_checkpoint(base)
    threads = len(os.sched_getaffinity(0))
    tokens = _tokenize(tokenizer, model, [photo.text for photo in split.train])
    categories = sorted({photo.category for photo in split.train})
    names = _tokenize(tokenizer, model, categories)
    labels = torch.tensor([categories.index(photo.category) for photo in split.train])
    photos = AugmentedPhotos(
        load_pixels(split.train, preprocessing.geometry, threads),
        tokens | {"labels": labels},
        training.augmentation.build(preprocessing.geometry.crop_to),
    )
    log.info("training on %d photos with texts from %s", len(photos), base.name)

    def loss(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        labels = batch["labels"]
        images = _embed_photos(model, preprocessing, batch["pixels"])
        texts = _embed_texts(model, {name: batch[name] for name in names})
        scale = model.logit_scale.exp()
        loss = contrastive_loss(images, texts, scale, batch["input_ids"])
        if training.category_weight:
            name_vectors = _embed_texts(model, {name: values.to(labels.device) for name, values in names.items()})
            loss = loss + training.category_weight * functional.cross_entropy(scale * images @ name_vectors.T, labels)
        return loss

    if training.settings.epochs:
        with tempfile.TemporaryDirectory() as scratch:
            train("encoder", model, photos, loss, training.settings, Path(scratch))
    model.float().cpu().save_pretrained(output)
    _copy_processors(base, output)
    test = _tokenize(tokenizer, model, [photo.text for photo in split.test])
    return _evaluate(model, preprocessing, load_pixels(split.test, preprocessing.geometry, threads), test)


def contrastive_loss(
    images: torch.Tensor, texts: torch.Tensor, scale: torch.Tensor, tokens: torch.Tensor
) -> torch.Tensor:
    """The symmetric contrastive loss of CLIP (Radford et al. 2021) on unit vectors [n, dimensions].

    Photos whose texts have the same ``tokens`` [n, length] share one target, since neither text is wrong for
    the other photo.
    """
    logits = scale * images @ texts.T
    same = (tokens[:, None] == tokens[None]).all(-1).float()
    targets = same / same.sum(1, keepdim=True)
    return (functional.cross_entropy(logits, targets) + functional.cross_entropy(logits.T, targets)) / 2


def _tokenize(tokenizer: Any, model: Any, texts: Sequence[str]) -> dict[str, torch.Tensor]:
    tokens = tokenizer(
        list(texts),
        padding="max_length",
        truncation=True,
        max_length=model.config.text_config.max_position_embeddings,
        return_tensors="pt",
    )
    return {name: tokens[name] for name in ("input_ids", "attention_mask") if name in tokens}


def _embed_photos(model: Any, preprocessing: Preprocessing, pixels: torch.Tensor) -> torch.Tensor:
    features = model.get_image_features(pixel_values=preprocessing.normalise(pixels, torch.float32))
    return functional.normalize(features.pooler_output.float(), dim=-1)


def _embed_texts(model: Any, tokens: dict[str, torch.Tensor]) -> torch.Tensor:
    return functional.normalize(model.get_text_features(**tokens).pooler_output.float(), dim=-1)


@torch.inference_mode()
def _evaluate(
    model: Any, preprocessing: Preprocessing, pixels: torch.Tensor, tokens: dict[str, torch.Tensor]
) -> dict[str, float]:
    """Text-to-image recall: whether one of the best photos for a text is one that bears this very text."""
    device = choose_device("auto", "auto").torch_device
    model.eval().to(device)
    parts = [
        (
            _embed_photos(model, preprocessing, pixels[start : start + EVALUATION_BATCH].to(device)),
            _embed_texts(
                model, {name: values[start : start + EVALUATION_BATCH].to(device) for name, values in tokens.items()}
            ),
        )
        for start in range(0, len(pixels), EVALUATION_BATCH)
    ]
    images, texts = (torch.cat(column).cpu() for column in zip(*parts, strict=True))
    same = (tokens["input_ids"][:, None] == tokens["input_ids"][None]).all(-1)
    ranked = same.gather(1, (texts @ images.T).argsort(1, descending=True))
    return {"test_photos": len(pixels)} | {
        f"recall_at_{k}": round(ranked[:, :k].any(1).float().mean().item(), 4) for k in (1, 5, 10)
    }


def _copy_processors(base: Path, output: Path) -> None:
    from transformers import AutoImageProcessor, AutoTokenizer

    AutoTokenizer.from_pretrained(base, local_files_only=True).save_pretrained(output)
    AutoImageProcessor.from_pretrained(base, local_files_only=True).save_pretrained(output)
