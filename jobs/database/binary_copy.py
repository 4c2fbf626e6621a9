"""Send rows to a table with a binary COPY, or read rows with one, which is much cheaper than sending text.

To send, a column is a sequence with one value per row, in the binary format of its type, as returned by ``encode_*``.
"""

import io
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from sqlalchemy import Connection

EncodedColumn = Sequence[bytes | None]
"""The values of a column, one per row. None means NULL."""

HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
END = b"\xff\xff"
NULL = b"\xff\xff\xff\xff"
REAL_TYPE = 700
JSONB_VERSION = b"\x01"


def copy_rows(connection: Connection, table: str, columns: Mapping[str, EncodedColumn]) -> None:
    """Append rows to a table, given as columns by name. Database errors are those of psycopg2.

    Raises:
        ValueError: the columns differ in length.
    """
    fields = struct.pack(">h", len(columns))
    parts = [HEADER]
    for row in zip(*columns.values(), strict=True):
        parts.append(fields)
        parts.extend(NULL if value is None else struct.pack(">i", len(value)) + value for value in row)
    parts.append(END)
    driver: Any = connection.connection.dbapi_connection
    with driver.cursor() as cursor:
        statement = f"COPY {table} ({', '.join(columns)}) FROM STDIN (FORMAT binary)"
        cursor.copy_expert(statement, io.BytesIO(b"".join(parts)))


def halfvec_type(dimensions: int) -> np.dtype[Any]:
    """Return the type of a ``halfvec`` for `read_rows`. The field ``numbers`` has its components."""
    return np.dtype([("head", ">i4"), ("numbers", ">f2", (dimensions,))])


def read_rows(
    connection: Connection, query: str, columns: Mapping[str, Any], parameters: Mapping[str, Any] | None = None
) -> np.ndarray:
    """Return the rows of a query as a structured array with these columns. Nothing is decoded row by row.

    The type of a column is that of its binary format, such as ``>i8`` for ``bigint``. No value may be NULL.
    ``parameters`` are those of psycopg2: ``%(name)s``.
    """
    sized = [part for name, kind in columns.items() for part in ((f"{name}_bytes", ">i4"), (name, kind))]
    row = np.dtype([("fields", ">i2"), *sized])
    driver: Any = connection.connection.dbapi_connection
    received = io.BytesIO()
    with driver.cursor() as cursor:
        statement = cursor.mogrify(query, parameters).decode()
        cursor.copy_expert(f"COPY ({statement}) TO STDOUT (FORMAT binary)", received)
    content = received.getbuffer()[len(HEADER) : -len(END)]
    return np.frombuffer(content, row)


def encode_bigints(values: Iterable[int]) -> EncodedColumn:
    """Encode as ``bigint``."""
    return [struct.pack(">q", value) for value in values]


def encode_integers(values: Iterable[int]) -> EncodedColumn:
    """Encode as ``integer``."""
    return [struct.pack(">i", value) for value in values]


def encode_reals(values: Iterable[float]) -> EncodedColumn:
    """Encode as ``real``."""
    return [struct.pack(">f", value) for value in values]


def encode_texts(values: Iterable[str]) -> EncodedColumn:
    """Encode as ``text``."""
    return [value.encode() for value in values]


def encode_jsonb(documents: Iterable[str]) -> EncodedColumn:
    """Encode as ``jsonb``."""
    return [JSONB_VERSION + document.encode() for document in documents]


def encode_real_arrays(rows: np.ndarray) -> EncodedColumn:
    """Encode numbers [n, length] as ``real[]``."""
    length = rows.shape[1]
    elements = np.empty(rows.shape, dtype=[("size", ">i4"), ("value", ">f4")])
    elements["size"], elements["value"] = 4, rows
    # Number of dimensions, whether there are NULLs, element type, length, and index of the first element.
    head = struct.pack(">5i", 1, 0, REAL_TYPE, length, 1) if length else struct.pack(">3i", 0, 0, REAL_TYPE)
    return [head + row.tobytes() for row in elements]


def encode_halfvecs(rows: np.ndarray) -> EncodedColumn:
    """Encode numbers [n, dimensions] as pgvector's ``halfvec``, rounded to half precision."""
    head = struct.pack(">hh", rows.shape[1], 0)
    return [head + row.tobytes() for row in rows.astype(">f2")]
