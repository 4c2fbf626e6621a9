"""Queries on ``text_queries``: the vectors of texts that SQL can ask for."""

from collections.abc import Sequence

import numpy as np
from pgvector import HalfVector
from sqlalchemy import Connection, text


def is_text_known(connection: Connection, encoder_version_id: int, query_text: str) -> bool:
    """Whether an encoder's vector of a text is stored."""
    statement = text("""
        SELECT EXISTS (SELECT FROM catalog.text_queries WHERE query_text = :text AND encoder_version_id = :encoder)
    """)
    return bool(connection.scalar(statement, {"text": query_text, "encoder": encoder_version_id}))


def insert_text_vectors(
    connection: Connection, encoder_version_id: int, texts: Sequence[str], vectors: np.ndarray
) -> None:
    """Store an encoder's vectors [n, dimensions] of texts; those that are stored stay."""
    connection.execute(
        text("""
            INSERT INTO catalog.text_queries (query_text, encoder_version_id, embedding)
            SELECT query_text, :encoder, CAST(vector AS halfvec)
            FROM unnest(CAST(:texts AS text[]), CAST(:vectors AS text[])) AS q (query_text, vector)
            ON CONFLICT DO NOTHING
        """),
        {
            "encoder": encoder_version_id,
            "texts": list(texts),
            "vectors": [HalfVector(vector).to_text() for vector in vectors],
        },
    )


def list_missing_texts(connection: Connection, encoder_version_id: int, limit: int) -> list[str]:
    """Texts that another encoder has embedded and this one has not, at most so many."""
    statement = text(f"SELECT DISTINCT query_text {MISSING_TEXTS} ORDER BY query_text LIMIT :limit")
    return list(connection.execute(statement, {"encoder": encoder_version_id, "limit": limit}).scalars())


def count_missing_texts(connection: Connection, encoder_version_id: int) -> int:
    """How many texts another encoder has embedded and this one has not."""
    statement = text(f"SELECT count(DISTINCT query_text) {MISSING_TEXTS}")
    missing: int = connection.execute(statement, {"encoder": encoder_version_id}).scalar_one()
    return missing


MISSING_TEXTS = """
    FROM catalog.text_queries q
    WHERE NOT EXISTS (SELECT FROM catalog.text_queries k
                      WHERE k.query_text = q.query_text AND k.encoder_version_id = :encoder)
"""
