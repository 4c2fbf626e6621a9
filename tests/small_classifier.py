"""Classifiers with random weights, a hundredth of a ResNet-18: stored, fetched, hashed and loaded in no time."""

from collections.abc import Sequence
from pathlib import Path

from transformers import ConvNextImageProcessor, ResNetConfig, ResNetForImageClassification

from tests.shop import IMAGE_SIDE


def write_small_classifier(
    folder: Path, categories: Sequence[str], hidden_sizes: Sequence[int] = (16, 24, 32, 48)
) -> None:
    """Write a ResNet of one basic block for each of the hidden sizes."""
    config = ResNetConfig(
        embedding_size=16,
        hidden_sizes=list(hidden_sizes),
        depths=[1] * len(hidden_sizes),
        layer_type="basic",
        id2label=dict(enumerate(categories)),
        label2id={category: number for number, category in enumerate(categories)},
    )
    ResNetForImageClassification(config).save_pretrained(folder)
    ConvNextImageProcessor(
        size={"shortest_edge": IMAGE_SIDE},
        crop_pct=1.0,
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    ).save_pretrained(folder)
