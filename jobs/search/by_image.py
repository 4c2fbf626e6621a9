"""Search products that look like a product or like the photo in a file."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pgvector import HalfVector
from sqlalchemy import Engine

from jobs.connections import connect
from jobs.database.search import ProductHit, format_search, search_by_product, search_by_vector
from jobs.database.spaces import find_live_space, read_live_space
from jobs.errors import NotFoundError, RefusedError
from jobs.images.decode import MIN_SIDE_PIXELS, DecodedImage, DecodeLimits, decode_image
from jobs.search.encoders import load_photo_embedder
from jobs.settings import Settings, load_settings


def similar_products(
    product_id: str, k: int = 10, category: str | None = None, *, settings: Settings | None = None
) -> list[ProductHit]:
    """The ``k`` products most similar to a product, without itself, of one category if one is given.

    Raises:
        PermanentError: no such product, or none of its photos has a vector yet.
        RetryableError: the database is away.
    """
    with connect(settings or load_settings()) as connections, connections.engine.connect() as connection:
        return search_by_product(connection, product_id, k, category)


EmbedBy = Callable[[int], np.ndarray]
"""The unit vector [dimensions] of one photo, by the encoder of a model version's id."""

SHRUNKEN_SIDE = 1024
"""At least twice the input of any common encoder, so that shrinking while decoding changes no vector."""


@dataclass(frozen=True)
class PhotoSearch:
    """The hits, the most similar first, and the SQL that finds the same."""

    hits: list[ProductHit]
    sql: str


def similar_products_by_image(
    image_path: Path, k: int = 10, category: str | None = None, *, settings: Settings | None = None
) -> list[ProductHit]:
    """The ``k`` products most similar to a photo that need not be in the catalog.

    Raises:
        PermanentError: the file is no photo, or nothing is searchable yet.
        RetryableError: database or bucket away.
    """
    settings = settings or load_settings()
    pixels = read_photo(image_path, settings)
    with connect(settings) as connections:

        def embed(encoder_version_id: int) -> np.ndarray:
            return load_photo_embedder(connections, encoder_version_id)(pixels)

        return find_products_by_photo(connections.engine, embed, k, category).hits


def find_products_by_photo(engine: Engine, embed: EmbedBy, k: int, category: str | None) -> PhotoSearch:
    """`similar_products_by_image` on an open engine; ``embed`` is asked again if another space goes live meanwhile."""
    while True:
        with engine.connect() as connection:
            space = read_live_space(connection)
        vector = embed(space.encoder_version_id)
        # One snapshot for the check and the search: another space may have gone live while the photo was embedded.
        with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
            if find_live_space(connection) != space.space_id:
                continue
            hits = search_by_vector(connection, vector, space.space_id, k, category)
        shown_vector = HalfVector(vector).to_text()
        return PhotoSearch(hits, format_search("nearest_products", shown_vector, space.space_id, k, category=category))


def read_photo(image_path: Path, settings: Settings) -> np.ndarray:
    """Decode a file to uint8 RGB pixels [height, width, 3] under the limits of the ingest.

    Raises:
        PermanentError: no such file, or no photo in it.
    """
    try:
        content = image_path.read_bytes()
    except OSError as error:
        raise NotFoundError(f"{image_path}: {error.strerror}") from None
    decoded = decode_image(content, DecodeLimits(settings.images.max_pixels, MIN_SIDE_PIXELS, SHRUNKEN_SIDE))
    if not isinstance(decoded, DecodedImage):
        raise RefusedError(f"{image_path} is no photo that can be read: {decoded.reason} ({decoded.detail})")
    return decoded.pixels
