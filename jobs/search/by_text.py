"""Which products fit these words."""

from functools import partial

from pgvector import HalfVector
from sqlalchemy import Engine, text

from jobs.connections import connect
from jobs.database.spaces import EmbeddingSpace, read_live_space
from jobs.errors import PermanentError
from jobs.search.encoders import LoadTextEmbedder, load_text_embedder
from jobs.search.hits import ProductHit, read_product_hits
from jobs.settings import Settings, load_settings

MAX_QUERY_CHARACTERS = 500
"""More than any encoder reads, and little enough for the primary key of ``catalog.text_queries``."""


def search_products(
    query_text: str, k: int = 10, category: str | None = None, *, settings: Settings | None = None
) -> list[ProductHit]:
    """The ``k`` products whose photos fit a text best, of one category if one is given.

    The text's vector is kept, so that SQL can ask for the same text: ``catalog.search_products``.

    Raises:
        PermanentError: the text is empty or too long, or nothing is searchable yet.
        RetryableError: database or bucket away.
    """
    with connect(settings or load_settings()) as connections:
        load_encoder = partial(load_text_embedder, connections)
        return find_products_by_text(connections.engine, load_encoder, query_text, k, category)


def find_products_by_text(
    engine: Engine, load_encoder: LoadTextEmbedder, query_text: str, k: int, category: str | None
) -> list[ProductHit]:
    """`search_products` on an open engine; the encoder is loaded only for a text that is new."""
    embed_text_query(engine, load_encoder, query_text)
    with engine.connect() as connection:
        return read_product_hits(
            connection,
            "SELECT * FROM catalog.search_products(:text, CAST(:k AS integer), :category)",
            {"text": query_text, "k": k, "category": category},
        )


def embed_text_query(engine: Engine, load_encoder: LoadTextEmbedder, query_text: str) -> bool:
    """Store the vector of a text for the live space; False if it was there already.

    Raises:
        PermanentError: the text is empty or too long, or no space is live.
    """
    _check_query_text(query_text)
    with engine.connect() as connection:
        space = read_live_space(connection)
        is_known = connection.scalar(
            text("SELECT true FROM catalog.text_queries WHERE query_text = :text AND encoder_version_id = :encoder"),
            {"text": query_text, "encoder": space.encoder_version_id},
        )
    if is_known:
        return False
    _store_vector(engine, space, query_text, load_encoder)
    return True


def _store_vector(engine: Engine, space: EmbeddingSpace, query_text: str, load_encoder: LoadTextEmbedder) -> None:
    vector = load_encoder(space.encoder_version_id).embed([query_text])[0]
    with engine.begin() as connection:
        connection.execute(
            text("""
                INSERT INTO catalog.text_queries (query_text, encoder_version_id, embedding)
                VALUES (:text, :encoder, CAST(:vector AS halfvec))
                ON CONFLICT DO NOTHING
            """),
            {"text": query_text, "encoder": space.encoder_version_id, "vector": HalfVector(vector).to_text()},
        )


def _check_query_text(query_text: str) -> None:
    if not query_text.strip():
        raise PermanentError("the query is empty: say what to look for")
    if len(query_text) > MAX_QUERY_CHARACTERS:
        raise PermanentError(f"the query has {len(query_text)} characters, at most {MAX_QUERY_CHARACTERS} are read")
    if "\0" in query_text or any("\ud800" <= character <= "\udfff" for character in query_text):
        raise PermanentError("the query holds characters that are in no text: NUL, or half of a surrogate pair")
