"""The hits of a search, and the SQL that gives the same."""

from dataclasses import dataclass
from typing import Any

import psycopg2
from sqlalchemy import Connection, exc, text

from jobs.errors import NotFoundError, RefusedError

REFUSED_QUESTIONS = (
    psycopg2.errors.NoDataFound,
    psycopg2.errors.UndefinedObject,
    psycopg2.errors.ObjectNotInPrerequisiteState,
    psycopg2.DataError,
)
"""What the functions in ``sql/functions`` raise, and what Postgres says of values that it cannot hold."""


@dataclass(frozen=True)
class ProductHit:
    """A product that was found, with the photo that fits best; ``similarity`` is a cosine, -1 to 1."""

    product_id: str
    display_name: str | None
    category: str | None
    similarity: float
    image_id: int
    object_key: str


def read_product_hits(connection: Connection, query: str, parameters: dict[str, Any]) -> list[ProductHit]:
    """Run one of the search functions, the most similar product first.

    Raises:
        NotFoundError: the product, its vector or the space does not exist. The message is that of the SQL function.
        RefusedError: a value is invalid. The message is that of the database.
    """
    try:
        return [ProductHit(**row._mapping) for row in connection.execute(text(query), parameters)]
    except exc.DBAPIError as error:
        if not isinstance(error.orig, REFUSED_QUESTIONS):
            raise
        kind = RefusedError if isinstance(error.orig, psycopg2.DataError) else NotFoundError
        raise kind(_describe(error.orig)) from None
    except ValueError as error:
        # The driver refuses what no Postgres text can hold: a NUL character, half a surrogate pair.
        raise RefusedError(f"the question is not a text that a database can hold: {error}") from None


def _describe(error: psycopg2.Error) -> str:
    message = error.diag.message_primary or str(error)
    hint = error.diag.message_hint
    return f"{message} ({hint})" if hint else message


def write_text_search(query_text: str, k: int, category: str | None) -> str:
    """The text must have been embedded, which every search for it does."""
    return _write_call("search_products", _quote(query_text), str(k), category)


def write_similar_search(product_id: str, k: int, category: str | None) -> str:
    """More like a product."""
    return _write_call("similar_products", _quote(product_id), str(k), category)


def write_photo_search(vector: str, space_id: int, k: int, category: str | None) -> str:
    """A vector as pgvector writes it, of a space that is live."""
    return _write_call("nearest_products", f"{_quote(vector)}, {space_id}", str(k), category)


def _write_call(function: str, question: str, k: str, category: str | None) -> str:
    arguments = ", ".join((question, k, *([_quote(category)] if category is not None else [])))
    return f"SELECT * FROM catalog.{function}({arguments});"


def _quote(value: str) -> str:
    # Backslashes are themselves in a text of standard SQL.
    return "'" + value.replace("'", "''") + "'"
