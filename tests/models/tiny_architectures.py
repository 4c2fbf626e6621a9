"""Write a minimal checkpoint of each architecture: random weights, but the same files as a real checkpoint."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import sentencepiece
from transformers import (
    BertTokenizer,
    ChineseCLIPConfig,
    ChineseCLIPImageProcessor,
    ChineseCLIPModel,
    ConvNextConfig,
    ConvNextForImageClassification,
    ConvNextImageProcessor,
    GemmaTokenizer,
    ResNetConfig,
    ResNetForImageClassification,
    Siglip2Config,
    Siglip2ImageProcessor,
    Siglip2Model,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
    SiglipTokenizer,
    SwinConfig,
    SwinForImageClassification,
    TimmWrapperConfig,
    TimmWrapperForImageClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
)

from demo.blank_checkpoints import write_blank_clip
from fixtures.shop import CATEGORIES

SIDE = 32
PATCH = 8
WIDTH = 64
WORDS = ["red", "blue", "striped", "dress", "hat", "a"]
TOKENS = 24
LABELS = {
    "id2label": dict(enumerate(CATEGORIES)),
    "label2id": {category: number for number, category in enumerate(CATEGORIES)},
}
TOWER = {"hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2}
IMAGE_TOWER = TOWER | {"image_size": SIDE, "patch_size": PATCH}


def write_resnet(folder: Path) -> None:
    """Write a checkpoint like microsoft/resnet-50."""
    config = ResNetConfig(embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1], **LABELS)
    ResNetForImageClassification(config).save_pretrained(folder)
    ConvNextImageProcessor(size={"shortest_edge": SIDE}, crop_pct=0.875, resample=3).save_pretrained(folder)


def write_vit(folder: Path) -> None:
    """Write a checkpoint like google/vit-base-patch16-224."""
    ViTForImageClassification(ViTConfig(**IMAGE_TOWER, **LABELS)).save_pretrained(folder)
    ViTImageProcessor(size={"height": SIDE, "width": SIDE}).save_pretrained(folder)


def write_convnext(folder: Path) -> None:
    """Write a checkpoint like facebook/convnext-tiny-224."""
    config = ConvNextConfig(hidden_sizes=[16, 32, 32, 64], depths=[1, 1, 1, 1], image_size=SIDE, **LABELS)
    ConvNextForImageClassification(config).save_pretrained(folder)
    ConvNextImageProcessor(size={"shortest_edge": SIDE}, crop_pct=0.875, resample=3).save_pretrained(folder)


def write_swin(folder: Path) -> None:
    """Write a checkpoint like microsoft/swin-tiny-patch4-window7-224."""
    config = SwinConfig(
        image_size=SIDE, patch_size=4, embed_dim=16, depths=[1, 1], num_heads=[2, 2], window_size=4, **LABELS
    )
    SwinForImageClassification(config).save_pretrained(folder)
    ViTImageProcessor(size={"height": SIDE, "width": SIDE}, resample=3).save_pretrained(folder)


def write_timm(folder: Path) -> None:
    """Write a checkpoint like timm/resnet18.a1_in1k, whose configuration includes the preprocessing."""
    config = TimmWrapperConfig(
        architecture="resnet10t",
        num_labels=len(CATEGORIES),
        label_names=list(CATEGORIES),
        pretrained_cfg={
            "input_size": [3, SIDE, SIDE],
            "interpolation": "bicubic",
            "crop_pct": 0.95,
            "crop_mode": "center",
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "num_classes": len(CATEGORIES),
        },
    )
    TimmWrapperForImageClassification(config).save_pretrained(folder)


def write_clip(folder: Path) -> None:
    """Write a checkpoint like openai/clip-vit-base-patch32."""
    write_blank_clip(folder, SIDE, PATCH, width=WIDTH, dimensions=48, layers=2, texts=[" ".join(WORDS)])


def write_siglip(folder: Path) -> None:
    """Write a checkpoint like google/siglip-base-patch16-224.

    Its tokenizer uses SentencePiece and returns no attention mask.
    """
    folder.mkdir(exist_ok=True)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([" ".join(WORDS)] * 10),
        model_prefix=str(folder / "spiece"),
        vocab_size=18,
        bos_id=-1,
        pad_id=1,
        eos_id=2,
        unk_id=0,
        minloglevel=2,
    )
    (folder / "spiece.vocab").unlink()
    _write_siglip(folder, SiglipTokenizer(str(folder / "spiece.model"), model_input_names=["input_ids"]))


def write_siglip2(folder: Path) -> None:
    """Write a checkpoint like google/siglip2-base-patch16-224.

    It is a SigLIP with the tokenizer of Gemma, which returns no attention mask here.
    """
    _write_siglip(folder, _make_gemma_tokenizer())


def _write_siglip(folder: Path, tokenizer: Any) -> None:
    text_tower = {"vocab_size": len(tokenizer), "max_position_embeddings": TOKENS, "projection_size": WIDTH}
    SiglipModel(SiglipConfig(vision_config=IMAGE_TOWER, text_config=TOWER | text_tower)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    SiglipImageProcessor(size={"height": SIDE, "width": SIDE}).save_pretrained(folder)


def write_siglip2_naflex(folder: Path) -> None:
    """Write a checkpoint like google/siglip2-base-patch16-naflex.

    Its input is a list of patches, from an image of any shape.
    """
    tokenizer = _make_gemma_tokenizer()
    text_tower = {"vocab_size": len(tokenizer), "max_position_embeddings": TOKENS, "projection_size": WIDTH}
    image_tower = TOWER | {"patch_size": PATCH, "num_patches": 16}
    Siglip2Model(Siglip2Config(vision_config=image_tower, text_config=TOWER | text_tower)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    Siglip2ImageProcessor(patch_size=PATCH, max_num_patches=16).save_pretrained(folder)


def write_chinese_clip(folder: Path) -> None:
    """Write a checkpoint like OFA-Sys/chinese-clip-vit-base-patch16."""
    folder.mkdir(exist_ok=True)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"红色连衣裙蓝帽子", *WORDS]
    (folder / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    text_tower = TOWER | {"vocab_size": len(words), "max_position_embeddings": 64}
    config = ChineseCLIPConfig(vision_config=IMAGE_TOWER, text_config=text_tower, projection_dim=48)
    ChineseCLIPModel(config).save_pretrained(folder)
    BertTokenizer(vocab={word: number for number, word in enumerate(words)}).save_pretrained(folder)
    ChineseCLIPImageProcessor(size={"height": SIDE, "width": SIDE}, do_center_crop=False).save_pretrained(folder)


def _make_gemma_tokenizer() -> GemmaTokenizer:
    """Make a tokenizer with the settings of SigLIP 2 checkpoints."""
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    letters = [*"▁abcdefghijklmnopqrstuvwxyz", *(f"<0x{byte:02X}>" for byte in range(256))]
    vocabulary = {token: number for number, token in enumerate([*special, *letters])}
    return GemmaTokenizer(
        vocab=vocabulary,
        merges=[],
        add_bos_token=False,
        add_eos_token=True,
        padding_side="right",
        model_input_names=["input_ids"],
        model_max_length=TOKENS,
    )


CLASSIFIERS: dict[str, Callable[[Path], None]] = {
    "ResNet": write_resnet,
    "ViT": write_vit,
    "ConvNeXt": write_convnext,
    "Swin": write_swin,
    "timm": write_timm,
}
ENCODERS: dict[str, Callable[[Path], None]] = {
    "CLIP": write_clip,
    "SigLIP": write_siglip,
    "SigLIP 2": write_siglip2,
    "Chinese-CLIP": write_chinese_clip,
}
