"""Export the text tower of an encoder as a program in float32, with its tokenizer."""

import logging
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from torch import nn
from torch.export import Dim
from torch.nn import functional

from jobs.errors import first_line
from jobs.models.device import choose_device
from jobs.models.encoder import PADDED_TEXT_TOWERS, TextEncoder, load_text_encoder, tokenize
from jobs.models.exported_text import (
    FIELDS,
    SETTINGS_FILE,
    TOKENIZER_FILE,
    TokenSettings,
    load_text_tokenizer,
)
from jobs.models.image_model import PROGRAM_FILE
from jobs.retrain.optimize.export import own_weights

log = logging.getLogger(__name__)

EXAMPLES = (
    "red striped dress",
    "HAT",
    "",
    "Größe 38 · crème brûlée 👗 裙子",
    "a very long description of a coat " * 40,
)
"""Texts on which both tokenizers have to agree: capitals, no words, other scripts, and more tokens than fit."""


class _UnitVectors(nn.Module):
    def __init__(self, model: Any, names: tuple[str, ...]) -> None:
        super().__init__()
        self.model = model
        self.names = names

    def forward(self, *tokens: torch.Tensor) -> torch.Tensor:
        features = self.model.get_text_features(**dict(zip(self.names, tokens, strict=True))).pooler_output
        return functional.normalize(features.float(), dim=-1)


def export_text(checkpoint: Path, folder: Path) -> bool:
    """Write the text tower of a checkpoint. Return False if this kind of tower cannot be exported.

    Raises:
        PermanentError: the checkpoint contains no encoder.
    """
    encoder = load_text_encoder(checkpoint, choose_device("cpu", "fp32"))
    try:
        folder.mkdir()
        settings = _write_tokenizer(encoder, folder)
        _require_same_tokens(encoder, folder)
        _write_program(encoder, settings, folder)
    except (RuntimeError, ValueError) as error:
        log.warning("the text tower is served by Transformers, because it cannot be exported: %s", first_line(error))
        return False
    return True


def _write_tokenizer(encoder: TextEncoder, folder: Path) -> TokenSettings:
    tokenizer, tower = encoder.tokenizer, encoder.model.config.text_config
    if not tokenizer.is_fast:
        raise ValueError(f"{type(tokenizer).__name__} has no tokenizer.json")
    names = tuple(tokenize(tokenizer, encoder.model, EXAMPLES))
    if not set(names) <= FIELDS.keys():
        raise ValueError(f"it needs {', '.join(names)}")
    settings = TokenSettings(
        inputs=names,
        max_length=min(tower.max_position_embeddings, tokenizer.model_max_length),
        pads_to_max_length=tower.model_type in PADDED_TEXT_TOWERS,
        pad_id=tokenizer.pad_token_id,
        pad_token=tokenizer.pad_token,
    )
    tokenizer.backend_tokenizer.save(str(folder / TOKENIZER_FILE))
    (folder / SETTINGS_FILE).write_bytes(TypeAdapter(TokenSettings).dump_json(settings, indent=1))
    return settings


def _require_same_tokens(encoder: TextEncoder, folder: Path) -> None:
    """Raise ValueError if the tokenizer gives other tokens than that of the checkpoint."""
    ours = load_text_tokenizer(folder)
    for texts in (EXAMPLES, *((text,) for text in EXAMPLES)):
        expected = tokenize(encoder.tokenizer, encoder.model, texts).values()
        if not all(torch.equal(mine, theirs) for mine, theirs in zip(ours.tokenize(texts), expected, strict=True)):
            raise ValueError("its tokenizer gives other tokens without Transformers")


def _write_program(encoder: TextEncoder, settings: TokenSettings, folder: Path) -> None:
    module = own_weights(_UnitVectors(encoder.model, settings.inputs).eval())
    example = tuple(tokenize(encoder.tokenizer, encoder.model, EXAMPLES[:2]).values())
    texts, length = Dim("texts", min=1), Dim("tokens", min=2, max=settings.max_length)
    sizes = {0: texts} if settings.pads_to_max_length else {0: texts, 1: length}
    with torch.no_grad():
        program = torch.export.export(module, example, dynamic_shapes=(tuple(sizes for _ in example),))
    torch.export.save(program, folder / PROGRAM_FILE)
