"""Call the search functions of the catalog, and store the vectors of texts in ``text_queries``."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import psycopg2
from pgvector import HalfVector
from pgvector.sqlalchemy import HALFVEC
from sqlalchemy import ARRAY, Connection, TextClause, bindparam, exc, text

from jobs.database.records import Record, read_records
from jobs.errors import NotFoundError, RefusedError

REFUSED_QUERIES = (
    psycopg2.errors.NoDataFound,
    psycopg2.errors.UndefinedObject,
    psycopg2.errors.ObjectNotInPrerequisiteState,
    psycopg2.DataError,
)
"""Errors that the functions in ``sql/functions`` raise, and errors about values that Postgres cannot store."""
CLOSE_DEVIATIONS = 2.5
"""If the best hit is fewer deviations above the mean, no product is a close match (docs/decisions/pages.md)."""
WEAK_DEVIATIONS = 1.8
"""A hit that is fewer deviations above the mean is weak."""
MIN_SCALE_IMAGES = 30
"""With fewer images, the scale is not reliable, and no hit is called weak."""


@dataclass(frozen=True)
class ProductHit:
    """A product that a search found, with its best image. ``similarity`` is a cosine, -1 to 1."""

    product_id: str
    display_name: str | None
    category: str | None
    similarity: float
    image_id: int
    object_key: str


@dataclass(frozen=True)
class SimilarityScale:
    """How similar a query is to random images: the mean, and the usual standard deviation of queries of its kind.

    Encoders differ in the range of their similarities, and texts differ in their mean. Only the distance from the mean
    in standard deviations can be compared with a limit.
    """

    mean: float
    spread: float
    images: int

    @property
    def is_known(self) -> bool:
        """Whether enough images have a vector, and they are not all the same."""
        return self.images >= MIN_SCALE_IMAGES and self.spread > 0

    def is_close(self, hits: Sequence[ProductHit]) -> bool:
        """Return whether the best hit matches the query, rather than being the least unsuitable."""
        return not self.is_known or (bool(hits) and self._measure(hits[0]) >= CLOSE_DEVIATIONS)

    def is_weak(self, hit: ProductHit) -> bool:
        """Return whether a hit is less similar than most products that match a query."""
        return self.is_known and self._measure(hit) < WEAK_DEVIATIONS

    def _measure(self, hit: ProductHit) -> float:
        return (hit.similarity - self.mean) / self.spread


def read_text_scale(connection: Connection, query_text: str) -> SimilarityScale:
    """Return the scale of a stored text in the live space. Raises the same errors as `search_by_text`."""
    return _read_scale(connection, "catalog.text_vector(:query)", query_text, is_text=True)


def read_product_scale(connection: Connection, product_id: str) -> SimilarityScale:
    """Return the scale of a product in the live space. Raises the same errors as `search_by_product`."""
    return _read_scale(connection, "catalog.product_vector(:query)", product_id, is_text=False)


def read_vector_scale(connection: Connection, vector: np.ndarray) -> SimilarityScale:
    """Return the scale of an image's vector in the live space."""
    return _read_scale(connection, "CAST(:query AS halfvec)", HalfVector(vector).to_text(), is_text=False)


def _read_scale(connection: Connection, vector: str, query: str, *, is_text: bool) -> SimilarityScale:
    call = f"catalog.similarity_scale({vector}, catalog.live_space(), :is_text)"
    statement = text(f"SELECT * FROM {call}")  # noqa: S608 - the vector is one of three constants
    (scale,) = _read_rows(connection, statement, {"query": query, "is_text": is_text}, SimilarityScale)
    return scale


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
    return _read_rows(connection, query, parameters, ProductHit)


def _read_rows(
    connection: Connection, query: TextClause, parameters: dict[str, Any], record_type: type[Record]
) -> list[Record]:
    """Run one of the functions.

    Raises:
        NotFoundError: the product, its vector or the space does not exist. The message comes from the SQL function.
        RefusedError: a value is invalid. The message comes from the database.
    """
    try:
        return list(read_records(connection.execute(query, parameters), record_type))
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


@dataclass(frozen=True)
class HitRange:
    """A page of hits: ``limit`` hits after the first ``offset`` ones."""

    offset: int
    limit: int

    @property
    def k(self) -> int:
        """The number of hits to search for: one more than needed, which shows whether there is a next page."""
        return self.offset + self.limit + 1

    def cut(self, hits: Sequence[ProductHit]) -> list[ProductHit]:
        """Return the hits of the page."""
        return list(hits[self.offset : self.offset + self.limit])


def format_search(function: str, *arguments: str | int, category: str | None, shown: HitRange) -> str:
    """Return the SQL of a page of a search, for display."""
    given = [*arguments, shown.k, *([category] if category is not None else [])]
    # A backslash needs no escape in a standard SQL string.
    quoted = [str(value) if isinstance(value, int) else "'" + value.replace("'", "''") + "'" for value in given]
    offset = f" OFFSET {shown.offset}" if shown.offset else ""
    call = f"catalog.{function}({', '.join(quoted)})"
    return f"SELECT * FROM {call} LIMIT {shown.limit}{offset};"  # noqa: S608 - shown, never executed


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
