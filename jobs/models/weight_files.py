"""Which files of a checkpoint are needed, by their names."""

import re
from collections.abc import Iterable
from fnmatch import fnmatch

SMALL_FILES = ("*.json", "*.txt", "*.model")
"""Configuration, preprocessing and tokenizer."""
SHARDS_OF = {
    "model.safetensors": None,
    "model.safetensors.index.json": r"model-\d+-of-\d+\.safetensors",
    "pytorch_model.bin": None,
    "pytorch_model.bin.index.json": r"pytorch_model-\d+-of-\d+\.bin",
}
"""The weights in the layout of Transformers, the best first: one file, or an index and its shards."""


def choose_weights(names: Iterable[str]) -> tuple[str, ...]:
    """The best weights among the files of a folder: one file, or an index and then its shards; empty without any."""
    present = sorted(names)
    for first, pattern in SHARDS_OF.items():
        shards = [name for name in present if pattern and re.fullmatch(pattern, name)]
        if first in present and (shards or not pattern):
            return (first, *shards)
    return ()


def choose_small_files(names: Iterable[str]) -> tuple[str, ...]:
    """Configuration, preprocessing and tokenizer among the files of a folder, without the indexes of weights."""
    return tuple(
        name
        for name in sorted(names)
        if any(fnmatch(name, pattern) for pattern in SMALL_FILES) and not name.endswith(".index.json")
    )
