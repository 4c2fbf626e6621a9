"""Write checkpoints with random weights, so that the sample catalog, benchmarks and tests need no downloads."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPTextConfig,
    ConvNextImageProcessor,
    PreTrainedTokenizerFast,
    ResNetConfig,
    ResNetForImageClassification,
    TimmWrapperConfig,
    VisionTextDualEncoderConfig,
    VisionTextDualEncoderModel,
)

MAX_TOKENS = 24
VOCABULARY = 1000
SAMPLE_SIDE = 64
SAMPLE_WIDTHS = (24, 48, 96, 192)
"""Channels per stage of the sample catalog's networks. A third of a ResNet-18's is enough for rendered garments."""
SAMPLE_STEM_WIDTH = 8
HEAD_WIDTH = 64
SEED = 7


@dataclass(frozen=True)
class BlankBases:
    """Folders of small networks with random weights, which train quickly on the sample catalog."""

    classifier: Path
    encoder: Path


def write_blank_bases(folder: Path, categories: Sequence[str], texts: Iterable[str]) -> BlankBases:
    """Write a classifier and an encoder, identical on each call. The encoder's tokenizer is trained on ``texts``."""
    bases = BlankBases(folder / "blank-classifier", folder / "blank-encoder")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        write_blank_resnet(bases.classifier, SAMPLE_SIDE, categories, SAMPLE_WIDTHS, blocks=1)
        write_blank_dual_encoder(bases.encoder, SAMPLE_SIDE, dimensions=64, texts=texts)
    return bases


def write_blank_resnet18(folder: Path, image_side: int, categories: Sequence[str]) -> None:
    """Write a ResNet-18 (He et al. 2015) with random weights, for images of ``image_side`` pixels."""
    write_blank_resnet(folder, image_side, categories, (64, 128, 256, 512), blocks=2)


def write_blank_resnet(
    folder: Path, image_side: int, categories: Sequence[str], widths: Sequence[int], blocks: int
) -> None:
    """Write a ResNet with ``blocks`` basic blocks in each stage and ``widths`` channels per stage."""
    config = ResNetConfig(
        embedding_size=widths[0],
        hidden_sizes=list(widths),
        depths=[blocks] * len(widths),
        layer_type="basic",
        id2label=dict(enumerate(categories)),
        label2id={category: index for index, category in enumerate(categories)},
    )
    ResNetForImageClassification(config).save_pretrained(folder)
    ConvNextImageProcessor(
        size={"shortest_edge": image_side},
        crop_pct=1.0,
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    ).save_pretrained(folder)


def write_blank_dual_encoder(folder: Path, image_side: int, dimensions: int, texts: Iterable[str]) -> None:
    """Write an encoder with random weights. Its image tower is a small ResNet, which learns shapes from few images.

    A vision transformer needs far more images (Dosovitskiy et al. 2020, section 4.3).
    """
    tokenizer = _train_tokenizer(texts)
    image_tower = TimmWrapperConfig(
        architecture="resnet10t", model_args={"channels": list(SAMPLE_WIDTHS), "stem_width": SAMPLE_STEM_WIDTH}
    )
    # The projection needs the width, which timm's configurations do not contain.
    image_tower.hidden_size = SAMPLE_WIDTHS[-1]
    text_tower = CLIPTextConfig(**_describe_text_tower(tokenizer, dimensions, layers=1))
    config = VisionTextDualEncoderConfig.from_vision_text_configs(image_tower, text_tower, projection_dim=dimensions)
    VisionTextDualEncoderModel(config).save_pretrained(folder)
    _write_inputs(folder, image_side, tokenizer)


def write_blank_clip(
    folder: Path, image_side: int, patch_side: int, width: int, dimensions: int, layers: int, texts: Iterable[str]
) -> None:
    """Write a CLIP with random weights, vectors of ``dimensions``, and a tokenizer trained on ``texts``."""
    tokenizer = _train_tokenizer(texts)
    config = CLIPConfig(
        projection_dim=dimensions,
        vision_config={
            "image_size": image_side,
            "patch_size": patch_side,
            "hidden_size": width,
            "intermediate_size": 4 * width,
            "num_hidden_layers": layers,
            "num_attention_heads": width // HEAD_WIDTH,
        },
        text_config=_describe_text_tower(tokenizer, width, max(2, layers // 2)),
    )
    CLIPModel(config).save_pretrained(folder)
    _write_inputs(folder, image_side, tokenizer)


def _describe_text_tower(tokenizer: PreTrainedTokenizerFast, width: int, layers: int) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": MAX_TOKENS,
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": width // HEAD_WIDTH,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def _write_inputs(folder: Path, image_side: int, tokenizer: PreTrainedTokenizerFast) -> None:
    """Write the tokenizer and the image processor of an encoder."""
    tokenizer.save_pretrained(folder)
    CLIPImageProcessor(
        size={"shortest_edge": image_side}, crop_size={"height": image_side, "width": image_side}
    ).save_pretrained(folder)


def _train_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE, which has tokens for every text, including unknown words."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<pad>", "<start>", "<unknown>", "<end>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", 1), ("<end>", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<start>",
        eos_token="<end>",
        pad_token="<pad>",
        unk_token="<unknown>",
        model_max_length=MAX_TOKENS,
    )
