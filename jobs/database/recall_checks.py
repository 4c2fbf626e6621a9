"""Queries of the recall check: samples, all vectors in batches, live searches, and the table ``recall_checks``."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pgvector.sqlalchemy import HALFVEC
from sqlalchemy import Connection, bindparam, text

from jobs.database.binary_copy import halfvec_type, read_rows
from jobs.database.records import read_records
from jobs.database.spaces import EmbeddingSpace

LARGE_CATEGORY = 5000
"""Searches in categories with more images use codes, as in ``sql/functions/rank_images.sql``."""
BATCH_PAGES = 2048
"""Pages of a table to read at once, 16 MiB."""


@dataclass(frozen=True)
class RecallCheck:
    """Recall and latency of searches in one category, or without one, with a 95 % confidence interval."""

    space_id: int
    category: str | None
    queries: int
    recall: float
    low: float
    high: float
    bound: float
    p50_milliseconds: float
    p95_milliseconds: float

    @property
    def is_below(self) -> bool:
        """Whether recall is below the bound, beyond the error of the sample."""
        return self.high < self.bound

    @property
    def sentence(self) -> str:
        """The result in words."""
        where = f"in the category {self.category}" if self.category is not None else "without a category"
        return f"searches {where} find {self.recall:.3f} of the true neighbors ({self.low:.3f} to {self.high:.3f})"


@dataclass(frozen=True)
class StoredCheck:
    """A check with its time."""

    checked_at: datetime
    check: RecallCheck


@dataclass(frozen=True)
class CatalogImages:
    """The images in the bucket, by ascending id. ``category`` is an index into a list of categories, or -1."""

    image_ids: NDArray[np.int64]
    category: NDArray[np.int32]

    def find(self, image_ids: NDArray[np.int64]) -> tuple[NDArray[np.bool_], NDArray[np.int32]]:
        """Return which images are in the bucket, and the category of each."""
        places = np.minimum(np.searchsorted(self.image_ids, image_ids), len(self.image_ids) - 1)
        return self.image_ids[places] == image_ids, self.category[places]


def list_large_categories(connection: Connection, space_id: int, min_images: int = LARGE_CATEGORY) -> list[str]:
    """List the categories of a space that have more images than this, as its codes were last updated."""
    statement = text("""
        SELECT image_category FROM catalog.vector_codes WHERE space_id = :space AND image_category IS NOT NULL
        GROUP BY image_category HAVING count(*) > :few ORDER BY image_category
    """)
    return list(connection.execute(statement, {"space": space_id, "few": min_images}).scalars())


def read_catalog_images(connection: Connection, categories: Sequence[str]) -> CatalogImages:
    """Read the ids and current categories of all images in the bucket: 22 bytes each."""
    query = """
        SELECT i.image_id, coalesce(array_position(CAST(%(names)s AS text[]), t.category), 0) - 1
        FROM catalog.images i LEFT JOIN catalog.current_image_tags t USING (image_id) WHERE i.deleted_at IS NULL
    """
    rows = read_rows(connection, query, {"image_id": ">i8", "category": ">i4"}, {"names": list(categories)})
    order = np.argsort(rows["image_id"])
    return CatalogImages(rows["image_id"][order].astype(np.int64), rows["category"][order].astype(np.int32))


def read_vectors_of(
    connection: Connection, space: EmbeddingSpace, image_ids: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the ids and vectors [n, dimensions] of those images that have a vector, in any order."""
    query = f"SELECT image_id, embedding FROM catalog.{space.partition} WHERE image_id = ANY (%(ids)s)"  # noqa: S608
    return _split(_read(connection, space, query, {"ids": image_ids.tolist()}))


def read_text_vectors(connection: Connection, space: EmbeddingSpace, limit: int) -> NDArray[np.float32]:
    """Return the vectors [n, dimensions] of the latest texts that were embedded for a space."""
    query = """
        SELECT CAST(0 AS bigint), embedding FROM catalog.text_queries WHERE encoder_version_id = %(encoder)s
        ORDER BY embedded_at DESC, query_text LIMIT %(limit)s
    """
    return _split(_read(connection, space, query, {"encoder": space.encoder_version_id, "limit": limit}))[1]


def count_batches(connection: Connection, space: EmbeddingSpace) -> int:
    """Return the number of batches of `read_batches`."""
    statement = text("SELECT pg_relation_size(CAST(:table AS regclass)) / current_setting('block_size')::bigint")
    pages: int = connection.execute(statement, {"table": f"catalog.{space.partition}"}).scalar_one()
    return -(-pages // BATCH_PAGES)


def read_batches(
    connection: Connection, space: EmbeddingSpace, batches: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Yield the ids and vectors [n, dimensions] of all images of a space, in the order of the table."""
    # Ranges of pages: no statement waits for long, and no batch needs much memory.
    query = f"SELECT image_id, embedding FROM catalog.{space.partition} WHERE ctid >= %(first)s AND ctid < %(end)s"  # noqa: S608
    for number in range(batches):
        first, end = (f"({page},0)" for page in (number * BATCH_PAGES, (number + 1) * BATCH_PAGES))
        yield _split(_read(connection, space, query, {"first": first, "end": end}))


def _read(connection: Connection, space: EmbeddingSpace, query: str, parameters: dict[str, Any]) -> np.ndarray:
    return read_rows(connection, query, {"image_id": ">i8", "vector": halfvec_type(space.dimensions)}, parameters)


def _split(rows: np.ndarray) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    return rows["image_id"].astype(np.int64), rows["vector"]["numbers"].astype(np.float32)


def search_images(
    connection: Connection, space_id: int, vector: NDArray[np.float32], k: int, category: str | None, own: int | None
) -> list[tuple[int, float]]:
    """Return the ids and similarities of the ``k`` nearest images as users get them. ``own`` is left out."""
    statement = text("""
        SELECT image_id, similarity
        FROM catalog.nearest_images(CAST(:vector AS halfvec), :space, CAST(:k AS integer), :category, :own)
    """).bindparams(bindparam("vector", type_=HALFVEC))
    parameters = {"vector": vector, "space": space_id, "k": k, "category": category, "own": own}
    return [(row.image_id, row.similarity) for row in connection.execute(statement, parameters)]


def insert_checks(connection: Connection, checks: Sequence[RecallCheck]) -> None:
    """Store the checks of one time."""
    statement = text("""
        INSERT INTO catalog.recall_checks
            (space_id, category, queries, recall, low, high, bound, p50_milliseconds, p95_milliseconds)
        VALUES (:space_id, :category, :queries, :recall, :low, :high, :bound, :p50_milliseconds, :p95_milliseconds)
    """)
    connection.execute(statement, [vars(check) for check in checks])


def list_checks(connection: Connection, times: int) -> list[StoredCheck]:
    """List the checks of the latest times in the live space, oldest first, each time beginning without a category."""
    statement = text("""
        SELECT c.* FROM catalog.recall_checks c
        JOIN (
            SELECT space_id, checked_at FROM catalog.recall_checks JOIN catalog.embedding_spaces USING (space_id)
            WHERE state = 'live' AND category IS NULL ORDER BY checked_at DESC LIMIT :times
        ) latest USING (space_id, checked_at)
        ORDER BY checked_at, category NULLS FIRST
    """)
    return list(read_records(connection.execute(statement, {"times": times}), StoredCheck))
