"""What a search answers, and how a refused question becomes one line."""

from dataclasses import dataclass
from typing import Any

import psycopg2
from sqlalchemy import Connection, exc, text

from jobs.errors import PermanentError

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
        PermanentError: the question cannot be answered; the message is the function's own, with its hint.
    """
    try:
        return [ProductHit(**row._mapping) for row in connection.execute(text(query), parameters)]
    except exc.DBAPIError as error:
        if not isinstance(error.orig, REFUSED_QUESTIONS):
            raise
        raise PermanentError(_describe(error.orig)) from None
    except ValueError as error:
        # The driver refuses what no Postgres text can hold: a NUL character, half a surrogate pair.
        raise PermanentError(f"the question is not a text that a database can hold: {error}") from None


def _describe(error: psycopg2.Error) -> str:
    message = error.diag.message_primary or str(error)
    hint = error.diag.message_hint
    return f"{message} ({hint})" if hint else message
