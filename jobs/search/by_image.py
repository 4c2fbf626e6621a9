"""Search products by similarity to a product or to an image file."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sqlalchemy import Engine

from jobs.connections import connect
from jobs.database.search import ProductHit, SimilarityScale, read_vector_scale, search_by_product, search_by_vector
from jobs.database.spaces import find_live_space, read_live_space
from jobs.errors import NotFoundError, RefusedError
from jobs.images.decode import MIN_SIDE_PIXELS, DecodedImage, DecodeLimits, decode_image
from jobs.search.encoders import load_image_embedder
from jobs.settings import Settings, load_settings


def similar_products(
    product_id: str, k: int = 10, category: str | None = None, *, settings: Settings | None = None
) -> list[ProductHit]:
    """Return the ``k`` products most similar to a product, excluding itself, optionally within one category.

    Raises:
        PermanentError: there is no such product, or none of its images has a vector yet.
        RetryableError: the database is unavailable.
    """
    with connect(settings or load_settings()) as connections, connections.engine.connect() as connection:
        return search_by_product(connection, product_id, k, category)


EmbedWith = Callable[[int], np.ndarray]
"""Embed one image with the encoder of a model version id, as a unit vector [dimensions]."""

SHRUNKEN_SIDE = 1024
"""At least twice the input side of common encoders, so shrinking while decoding does not change vectors."""


@dataclass(frozen=True)
class ImageSearch:
    """The hits, most similar first, and the vector and the space that were searched."""

    hits: list[ProductHit]
    vector: np.ndarray
    space_id: int
    scale: SimilarityScale


def similar_products_by_image(
    image_path: Path, k: int = 10, category: str | None = None, *, settings: Settings | None = None
) -> list[ProductHit]:
    """Return the ``k`` products most similar to an image file, which need not be in the catalog.

    Raises:
        PermanentError: the file cannot be decoded, or nothing is searchable yet.
        RetryableError: the database or the bucket is unavailable.
    """
    settings = settings or load_settings()
    pixels = read_image(image_path, settings)
    with connect(settings) as connections:

        def embed(encoder_version_id: int) -> np.ndarray:
            return load_image_embedder(connections, encoder_version_id)(pixels)

        return find_products_by_image(connections.engine, embed, k, category).hits


def find_products_by_image(engine: Engine, embed: EmbedWith, k: int, category: str | None) -> ImageSearch:
    """Search on an open engine. If another space goes live in the meantime, call ``embed`` again."""
    while True:
        with engine.connect() as connection:
            space = read_live_space(connection)
        vector = embed(space.encoder_version_id)
        # Check and search in one snapshot, because another space may have gone live during the embedding.
        with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
            if find_live_space(connection) != space.space_id:
                continue
            hits = search_by_vector(connection, vector, space.space_id, k, category)
            scale = read_vector_scale(connection, vector)
        return ImageSearch(hits, vector, space.space_id, scale)


def read_image(image_path: Path, settings: Settings) -> np.ndarray:
    """Decode a file to uint8 RGB pixels [height, width, 3] under the limits of the ingest flow.

    Raises:
        NotFoundError: the file cannot be read.
        RefusedError: it cannot be decoded.
    """
    try:
        content = image_path.read_bytes()
    except OSError as error:
        raise NotFoundError(f"{image_path}: {error.strerror}") from None
    decoded = decode_image(content, DecodeLimits(settings.images.max_pixels, MIN_SIDE_PIXELS, SHRUNKEN_SIDE))
    if not isinstance(decoded, DecodedImage):
        raise RefusedError(f"cannot decode {image_path}: {decoded.reason} ({decoded.detail})")
    return decoded.pixels
