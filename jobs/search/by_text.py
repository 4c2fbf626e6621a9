"""Search products by text."""

from functools import partial

from sqlalchemy import Engine

from jobs.connections import connect
from jobs.database.search import ProductHit, insert_text_vectors, is_text_known, search_by_text
from jobs.database.spaces import read_live_space
from jobs.errors import RefusedError
from jobs.search.encoders import LoadTextEmbedder, load_text_embedder
from jobs.settings import Settings, load_settings

MAX_QUERY_BYTES = 2000
"""Longer than any encoder's input, and equal to the limit in ``catalog.text_queries``."""


def find_text_problem(query_text: str) -> str | None:
    """Return a message for the user if a text cannot be searched for, otherwise None."""
    if not query_text.strip():
        return "the query is empty: enter what to look for"
    if "\0" in query_text or any("\ud800" <= character <= "\udfff" for character in query_text):
        return "the query contains a NUL character or an unpaired surrogate"
    size_bytes = len(query_text.encode())
    if size_bytes > MAX_QUERY_BYTES:
        return f"the query has {size_bytes} bytes, more than the limit of {MAX_QUERY_BYTES}"
    return None


def search_products(
    query_text: str, k: int = 10, category: str | None = None, *, settings: Settings | None = None
) -> list[ProductHit]:
    """Return the ``k`` products whose images best match a text, optionally within one category.

    Stores the vector of the text, so SQL can search for the same text with ``catalog.search_products``.

    Raises:
        RefusedError: the text is empty or too long, or nothing is searchable yet.
        RetryableError: the database or the bucket is unavailable.
    """
    with connect(settings or load_settings()) as connections:
        load_encoder = partial(load_text_embedder, connections)
        return find_products_by_text(connections.engine, load_encoder, query_text, k, category)


def find_products_by_text(
    engine: Engine, load_encoder: LoadTextEmbedder, query_text: str, k: int, category: str | None
) -> list[ProductHit]:
    """Search on an open engine. The encoder is loaded only for new texts."""
    embed_text_query(engine, load_encoder, query_text)
    with engine.connect() as connection:
        return search_by_text(connection, query_text, k, category)


def embed_text_query(engine: Engine, load_encoder: LoadTextEmbedder, query_text: str) -> bool:
    """Store the vector of a text for the live space. Return False if it was already stored.

    Raises:
        RefusedError: the text is empty or too long, or no space is live.
    """
    if (problem := find_text_problem(query_text)) is not None:
        raise RefusedError(problem)
    is_new = False
    # Repeat, because another space may go live while the encoder loads, and that space does not have the text yet.
    while (encoder_version_id := _find_encoder_without(engine, query_text)) is not None:
        vectors = load_encoder(encoder_version_id).embed([query_text])
        with engine.begin() as connection:
            insert_text_vectors(connection, encoder_version_id, [query_text], vectors)
        is_new = True
    return is_new


def _find_encoder_without(engine: Engine, query_text: str) -> int | None:
    """Return the encoder of the live space if it has not embedded the text yet."""
    with engine.connect() as connection:
        encoder_version_id = read_live_space(connection).encoder_version_id
        is_known = is_text_known(connection, encoder_version_id, query_text)
    return None if is_known else encoder_version_id
