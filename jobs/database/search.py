"""Call the search functions of the catalog, and store the vectors of texts in ``text_queries``."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import psycopg2
from pgvector.sqlalchemy import HALFVEC
from sqlalchemy import ARRAY, Connection, TextClause, bindparam, exc, text

from jobs.database.records import read_records
from jobs.errors import NotFoundError, RefusedError

REFUSED_QUERIES = (
    psycopg2.errors.NoDataFound,
    psycopg2.errors.UndefinedObject,
    psycopg2.errors.ObjectNotInPrerequisiteState,
    psycopg2.DataError,
)
"""Errors that the functions in ``sql/functions`` raise, and errors about values that Postgres cannot store."""


@dataclass(frozen=True)
class ProductHit:
    """A product that a search found, with its best image. ``similarity`` is a cosine, -1 to 1."""

    product_id: str
    display_name: str | None
    category: str | None
    similarity: float
    image_id: int
    object_key: str


def search_by_text(connection: Connection, query_text: str, k: int, category: str | None) -> list[ProductHit]:
    """Return the ``k`` products that match a stored text best.

    Raises:
        NotFoundError, RefusedError: as in `_read_hits`.
    """
    statement = text("SELECT * FROM catalog.search_products(:text, CAST(:k AS integer), :category)")
    return _read_hits(connection, statement, {"text": query_text, "k": k, "category": category})


def search_by_product(connection: Connection, product_id: str, k: int, category: str | None) -> list[ProductHit]:
    """Return the ``k`` products most similar to a product.

    Raises:
        NotFoundError, RefusedError: as in `_read_hits`.
    """
    statement = text("SELECT * FROM catalog.similar_products(:product, CAST(:k AS integer), :category)")
    return _read_hits(connection, statement, {"product": product_id, "k": k, "category": category})


def search_by_vector(
    connection: Connection, vector: np.ndarray, space_id: int, k: int, category: str | None
) -> list[ProductHit]:
    """Return the ``k`` products nearest to a vector of a live space.

    Raises:
        NotFoundError, RefusedError: as in `_read_hits`.
    """
    statement = text("""
        SELECT * FROM catalog.nearest_products(CAST(:vector AS halfvec), :space, CAST(:k AS integer), :category)
    """).bindparams(bindparam("vector", type_=HALFVEC))
    return _read_hits(connection, statement, {"vector": vector, "space": space_id, "k": k, "category": category})


def _read_hits(connection: Connection, query: TextClause, parameters: dict[str, Any]) -> list[ProductHit]:
    """Run one of the search functions.

    Raises:
        NotFoundError: the product, its vector or the space does not exist. The message comes from the SQL function.
        RefusedError: a value is invalid. The message comes from the database.
    """
    try:
        return list(read_records(connection.execute(query, parameters), ProductHit))
    except exc.DBAPIError as error:
        if not isinstance(error.orig, REFUSED_QUERIES):
            raise
        message = error.orig.diag.message_primary or str(error.orig)
        hint = error.orig.diag.message_hint
        kind = RefusedError if isinstance(error.orig, psycopg2.DataError) else NotFoundError
        raise kind(f"{message} ({hint})" if hint else message) from None
    except ValueError as error:
        # The driver rejects text that Postgres cannot store, such as a NUL character or half a surrogate pair.
        raise RefusedError(f"the query is not a text that Postgres can store: {error}") from None


def format_search(function: str, *arguments: str | int, category: str | None) -> str:
    """Return the SQL of a search, for display."""
    given = [*arguments, *([category] if category is not None else [])]
    # A backslash needs no escape in a standard SQL string.
    quoted = [str(value) if isinstance(value, int) else "'" + value.replace("'", "''") + "'" for value in given]
    return f"SELECT * FROM catalog.{function}({', '.join(quoted)});"  # noqa: S608 - shown, never executed


def is_text_known(connection: Connection, encoder_version_id: int, query_text: str) -> bool:
    """Return whether an encoder's vector of a text is stored."""
    statement = text("""
        SELECT EXISTS (SELECT FROM catalog.text_queries WHERE query_text = :text AND encoder_version_id = :encoder)
    """)
    return bool(connection.scalar(statement, {"text": query_text, "encoder": encoder_version_id}))


def insert_text_vectors(
    connection: Connection, encoder_version_id: int, texts: Sequence[str], vectors: np.ndarray
) -> None:
    """Store the vectors [n, dimensions] of texts. Texts that are already stored keep their vectors."""
    statement = text("""
        INSERT INTO catalog.text_queries (query_text, encoder_version_id, embedding)
        SELECT query_text, :encoder, embedding
        FROM unnest(CAST(:texts AS text[]), CAST(:vectors AS halfvec[])) AS q (query_text, embedding)
        ON CONFLICT DO NOTHING
    """).bindparams(bindparam("vectors", type_=ARRAY(HALFVEC)))
    parameters = {"encoder": encoder_version_id, "texts": list(texts), "vectors": list(vectors)}
    connection.execute(statement, parameters)


def list_missing_texts(connection: Connection, encoder_version_id: int, limit: int) -> list[str]:
    """Return at most ``limit`` texts that have a vector of another encoder but none of this one."""
    statement = text("""
        SELECT DISTINCT query_text FROM catalog.text_queries q
        WHERE NOT EXISTS (SELECT FROM catalog.text_queries k
                          WHERE k.query_text = q.query_text AND k.encoder_version_id = :encoder)
        ORDER BY query_text LIMIT :limit
    """)
    return list(connection.execute(statement, {"encoder": encoder_version_id, "limit": limit}).scalars())


def count_missing_texts(connection: Connection, encoder_version_id: int) -> int:
    """Count the texts that have a vector of another encoder but none of this one."""
    statement = text("""
        SELECT count(DISTINCT query_text) FROM catalog.text_queries q
        WHERE NOT EXISTS (SELECT FROM catalog.text_queries k
                          WHERE k.query_text = q.query_text AND k.encoder_version_id = :encoder)
    """)
    missing: int = connection.execute(statement, {"encoder": encoder_version_id}).scalar_one()
    return missing
