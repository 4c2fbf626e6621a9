"""Run the text tower of an encoder as an exported program, with a tokenizer that needs no Transformers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from pydantic import TypeAdapter, ValidationError
from tokenizers import Encoding, Tokenizer

from jobs.errors import ConfigurationError
from jobs.models.checkpoint import explain_damage
from jobs.models.device import Device
from jobs.models.exported_model import load_program
from jobs.models.image_model import PROGRAM_FILE

TOKENIZER_FILE, SETTINGS_FILE = "tokenizer.json", "tokens.json"
FIELDS: dict[str, Callable[[Encoding], list[int]]] = {
    "input_ids": lambda encoding: encoding.ids,
    "attention_mask": lambda encoding: encoding.attention_mask,
    "token_type_ids": lambda encoding: encoding.type_ids,
}
"""The inputs that a text tower may have."""


@dataclass(frozen=True)
class TokenSettings:
    """How texts become the inputs of a program, in their order.

    Texts are cut at ``max_length`` tokens. They are padded to the longest one, or always to ``max_length``.
    """

    inputs: tuple[str, ...]
    max_length: int
    pads_to_max_length: bool
    pad_id: int
    pad_token: str


@dataclass(frozen=True)
class TextTokenizer:
    """Turn texts into int64 tensors [n, length], one for each input of the program."""

    tokenizer: Tokenizer
    settings: TokenSettings

    def tokenize(self, texts: Sequence[str]) -> tuple[torch.Tensor, ...]:
        """Tokenize at least one text."""
        encodings = self.tokenizer.encode_batch(list(texts))
        return tuple(torch.tensor([FIELDS[name](one) for one in encodings]) for name in self.settings.inputs)


@dataclass(frozen=True)
class ExportedText:
    """The text tower on a device."""

    tokenizer: TextTokenizer
    forward: Callable[..., torch.Tensor]
    device: Device

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Turn texts into unit float32 vectors [n, dimensions]. Long texts are truncated."""
        inputs = [values.to(self.device.torch_device) for values in self.tokenizer.tokenize(texts)]
        with torch.inference_mode():
            vectors: np.ndarray = self.forward(*inputs).cpu().numpy()
        return vectors


def load_exported_text(folder: Path, device: Device) -> ExportedText:
    """Load an exported text tower, which computes in float32.

    Raises:
        ConfigurationError: the folder does not contain one.
    """
    return ExportedText(load_text_tokenizer(folder), load_program(folder / PROGRAM_FILE, device), device)


def load_text_tokenizer(folder: Path) -> TextTokenizer:
    """Load the tokenizer of an exported text tower.

    Raises:
        ConfigurationError: a file is missing or damaged.
    """
    try:
        settings = TypeAdapter(TokenSettings).validate_json((folder / SETTINGS_FILE).read_bytes())
    except (OSError, ValidationError) as error:
        raise ConfigurationError(f"{folder / SETTINGS_FILE} cannot be read: {str(error).splitlines()[0]}") from None
    with explain_damage(f"{folder / TOKENIZER_FILE} is not a tokenizer"):
        tokenizer = Tokenizer.from_file(str(folder / TOKENIZER_FILE))
    tokenizer.enable_truncation(settings.max_length)
    tokenizer.enable_padding(
        pad_id=settings.pad_id,
        pad_token=settings.pad_token,
        length=settings.max_length if settings.pads_to_max_length else None,
    )
    return TextTokenizer(tokenizer, settings)
