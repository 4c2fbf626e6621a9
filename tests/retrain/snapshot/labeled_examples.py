"""Examples as an import stores them, but without image bytes in the artifacts."""

import hashlib
from collections.abc import Iterable

import numpy as np

from fixtures.shop import Shop
from jobs.database.examples import Example, upsert_examples


def make_example(
    number: int,
    category: str = "dress",
    group: str | None = None,
    *,
    source: str = "shop",
    key: str | None = None,
    image_hash: bytes | None = None,
    title: str = "",
    description: str = "",
) -> Example:
    """Make an example. Each number has its own content hash and perceptual hash."""
    key = f"{number:05}.jpg" if key is None else key
    image_hash = make_image_hash(number) if image_hash is None else image_hash
    group = f"group {number}" if group is None else group
    return Example(source, key, make_content_hash(number), image_hash, category, title, description, group)


def make_content_hash(number: int) -> bytes:
    return hashlib.sha256(str(number).encode()).digest()


def make_image_hash(number: int, changed_bits: int = 0) -> bytes:
    """Make a perceptual hash. Numbers differ in about 128 of 256 bits, the same number in ``changed_bits``."""
    bits = np.random.default_rng(number).integers(0, 2, 256, dtype=np.uint8)
    bits[:changed_bits] ^= 1
    return np.packbits(bits).tobytes()


def sort_examples(examples: Iterable[Example]) -> list[Example]:
    """Sort examples as the database returns them."""
    return sorted(examples, key=lambda example: (example.content_hash, example.source, example.source_key))


def add_examples(shop: Shop, examples: Iterable[Example], import_id: str = "import-1") -> None:
    """Store examples."""
    with shop.connections.engine.begin() as connection:
        upsert_examples(connection, import_id, list(examples))
