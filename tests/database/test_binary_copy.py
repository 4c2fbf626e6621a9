"""A binary COPY stores what Postgres reads back."""

import json
from typing import Any

import numpy as np
import pytest
from psycopg2 import DataError
from sqlalchemy import Connection, Engine, text

from jobs.database.binary_copy import (
    EncodedColumn,
    copy_rows,
    encode_bigints,
    encode_halfvecs,
    encode_integers,
    encode_jsonb,
    encode_real_arrays,
    encode_reals,
    encode_texts,
    halfvec_type,
    read_rows,
)

TEXTS = ["", "dress", "Größe 38 — “neu” 👗", "tab\tnewline\n\\N"]
NUMBERS = np.array([[0.1, 0.0, 1 / 3], [1e-30, -2.5, 3.4e38]], dtype=np.float32)


def send(engine: Engine, kind: str, column: EncodedColumn) -> list[Any]:
    """Return a column of this type after a COPY, each value as text."""
    with engine.begin() as connection:
        connection.execute(text(f"CREATE TEMPORARY TABLE sent (position integer, value {kind}) ON COMMIT DROP"))
        copy_rows(connection, "sent", {"position": encode_integers(range(len(column))), "value": column})
        return list(connection.scalars(text("SELECT CAST(value AS text) FROM sent ORDER BY position")))


def test_whole_numbers(engine: Engine) -> None:
    assert send(engine, "bigint", encode_bigints([0, -1, 2**63 - 1, -(2**63)])) == [
        "0",
        "-1",
        "9223372036854775807",
        "-9223372036854775808",
    ]
    assert send(engine, "integer", encode_integers([7, -(2**31)])) == ["7", "-2147483648"]


def test_texts_and_documents(engine: Engine) -> None:
    assert send(engine, "text", encode_texts(TEXTS)) == TEXTS
    documents = [json.dumps({"category": word}, ensure_ascii=False) for word in TEXTS]
    assert send(engine, "jsonb", encode_jsonb(documents)) == documents


def test_reals_are_rounded_to_single_precision(engine: Engine) -> None:
    values = [0.1, 1 / 3, -1e-30, float("inf")]
    stored = send(engine, "real", encode_reals(values))
    assert [np.float32(value) for value in stored] == [np.float32(value) for value in values]


def test_arrays_of_reals_keep_every_bit(engine: Engine) -> None:
    stored = [json.loads(f"[{str(row)[1:-1]}]") for row in send(engine, "real[]", encode_real_arrays(NUMBERS))]
    assert np.array(stored, dtype=np.float32).tobytes() == NUMBERS.tobytes()


def test_arrays_without_elements_are_those_that_sql_writes(engine: Engine) -> None:
    column = encode_real_arrays(np.empty((2, 0), dtype=np.float32))
    with engine.begin() as connection:
        connection.execute(text("CREATE TEMPORARY TABLE sent (value real[]) ON COMMIT DROP"))
        copy_rows(connection, "sent", {"value": column})
        assert connection.scalars(text("SELECT value = '{}' FROM sent")).all() == [True, True]


def test_vectors_are_rounded_as_pgvector_rounds(engine: Engine) -> None:
    vectors = np.random.default_rng(1).normal(size=(50, 1100)).astype(np.float32)
    stored = send(engine, "halfvec", encode_halfvecs(vectors))
    with engine.connect() as connection:
        statement = text("SELECT CAST(CAST(v AS halfvec) AS text) FROM unnest(CAST(:vectors AS text[])) AS v")
        written = connection.scalars(statement, {"vectors": [str(vector.tolist()) for vector in vectors]}).all()
    assert stored == written
    values = np.array([json.loads(str(vector)) for vector in stored])
    assert np.array_equal(values.astype(np.float16), vectors.astype(np.float16))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_vectors_that_are_no_numbers_are_refused(engine: Engine, value: float) -> None:
    with pytest.raises(DataError, match="not allowed in halfvec"):
        send(engine, "halfvec", encode_halfvecs(np.array([[1, 0], [0, value]], dtype=np.float32)))


def test_null_is_not_the_empty_text(engine: Engine) -> None:
    assert send(engine, "text", [None, b"", None]) == [None, "", None]
    assert send(engine, "bytea", [None, bytes(range(3))]) == [None, "\\x000102"]


def test_nothing_can_be_sent(engine: Engine) -> None:
    assert send(engine, "text", []) == []


def test_columns_of_other_lengths_are_refused(engine: Engine) -> None:
    with engine.connect() as connection, pytest.raises(ValueError, match="shorter"):
        copy_rows(connection, "sent", {"one": [b""], "none": []})


def test_rows_are_read_as_they_were_sent(connection: Connection) -> None:
    connection.execute(text("CREATE TEMPORARY TABLE numbers (id bigint, rank integer, vector halfvec)"))
    vectors = np.array([[0.5, -1, 2], [3, 4, 65504]])
    columns = {
        "id": encode_bigints([2**40, -1]),
        "rank": encode_integers([7, 8]),
        "vector": encode_halfvecs(vectors),
    }
    copy_rows(connection, "numbers", columns)
    types = {"id": ">i8", "rank": ">i4", "vector": halfvec_type(3)}
    query = "SELECT id, rank, vector FROM numbers WHERE rank >= %(least)s ORDER BY rank"
    rows = read_rows(connection, query, types, {"least": 7})
    assert rows["id"].tolist() == [2**40, -1]
    assert rows["rank"].tolist() == [7, 8]
    np.testing.assert_array_equal(rows["vector"]["numbers"], vectors)
    assert len(read_rows(connection, query, types, {"least": 9})) == 0
