"""Load CLIP-like Transformers encoders, and embed images and texts in one vector space."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from jobs.errors import ConfigurationError
from jobs.models.checkpoint import explain_damage, load_model
from jobs.models.device import Device
from jobs.models.preprocessing import Preprocessing

PADDED_TEXT_TOWERS = frozenset({"siglip_text_model", "siglip2_text_model"})
"""Text towers that were trained on texts padded to a fixed length, with every token attending to the padding. In other
towers, padding is masked or comes after all tokens that matter."""


@dataclass(frozen=True)
class ImageEncoder:
    """The image tower."""

    model: Any
    preprocessing: Preprocessing
    device: Device

    @torch.no_grad()
    def predict(self, pixels: torch.Tensor) -> torch.Tensor:
        """Turn uint8 pixels [n, 3, h, w] on the device into unit float32 vectors [n, dimensions]."""
        inputs = self.preprocessing.normalize(pixels, self.device.dtype)
        return _unit_vectors(self.model.get_image_features(pixel_values=inputs))


@dataclass(frozen=True)
class TextEncoder:
    """The text tower, with its tokenizer."""

    model: Any
    tokenizer: Any
    device: Device

    @torch.inference_mode()
    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Turn texts into unit float32 vectors [n, dimensions]. Long texts are truncated."""
        tokens = tokenize(self.tokenizer, self.model, texts)
        features = self.model.get_text_features(
            **{name: values.to(self.device.torch_device) for name, values in tokens.items()}
        )
        return _unit_vectors(features).cpu().numpy()


def tokenize(tokenizer: Any, model: Any, texts: Sequence[str]) -> dict[str, torch.Tensor]:
    """Turn texts into inputs for the text tower of ``model``, each [n, length] and padded to the same length."""
    tower = model.config.text_config
    tokens = tokenizer(
        list(texts),
        padding="max_length" if tower.model_type in PADDED_TEXT_TOWERS else "longest",
        truncation=True,
        max_length=min(tower.max_position_embeddings, tokenizer.model_max_length),
        return_tensors="pt",
    )
    return dict(tokens)


def load_image_encoder(folder: Path, device: Device) -> ImageEncoder:
    """Load the image tower for inference. Raise ConfigurationError if the folder holds no such encoder."""
    model = _drop_tower(load_towers(folder, device.dtype), "text_model").eval().to(device.torch_device)
    return ImageEncoder(model, Preprocessing.from_checkpoint(folder), device)


def load_text_encoder(folder: Path, device: Device) -> TextEncoder:
    """Load the text tower for inference. Raise ConfigurationError if the folder holds no such encoder."""
    model = _drop_tower(load_towers(folder, device.dtype), "vision_model").eval().to(device.torch_device)
    return TextEncoder(model, load_tokenizer(folder), device)


def read_dimensions(folder: Path) -> int:
    """Read the vector length of a checkpoint from its configuration."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    # CLIP projects to this length. SigLIP has no projection: its vectors are as wide as its image tower.
    return int(getattr(config, "projection_dim", None) or config.vision_config.hidden_size)


def load_towers(folder: Path, dtype: torch.dtype) -> Any:
    """Load both towers as one model.

    Raises:
        ConfigurationError: the folder holds no model with image and text features.
    """
    from transformers import AutoModel

    model = load_model(AutoModel, folder, dtype)
    if not hasattr(model, "get_image_features") or not hasattr(model, "get_text_features"):
        raise ConfigurationError(f"{folder} holds {type(model).__name__}, which has no image and text features")
    return model


def load_tokenizer(folder: Path) -> Any:
    """Load the tokenizer of a checkpoint.

    Raises:
        ConfigurationError: it has none. Transformers would create an empty one, which maps all texts to equal tokens.
    """
    from transformers import AutoTokenizer

    with explain_damage(f"{folder} holds no tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    names = tokenizer.vocab_files_names.values()
    if not any((folder / name).is_file() for name in names):
        raise ConfigurationError(f"{folder} holds no tokenizer: none of {', '.join(names)} exists")
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise ConfigurationError(f"the tokenizer of {folder} has no padding token")
        # Padding is masked, so any token works.
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _drop_tower(model: Any, name: str) -> Any:
    """Free the memory of the tower that is not used."""
    if hasattr(model, name):
        setattr(model, name, None)
    return model


def _unit_vectors(features: Any) -> torch.Tensor:
    return functional.normalize(features.pooler_output.float(), dim=-1)
