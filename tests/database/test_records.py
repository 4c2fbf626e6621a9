"""Rows become records by the names of their columns, and declared tables match the schema."""

from dataclasses import dataclass

import pytest
from sqlalchemy import Connection, FromClause, select, text

from jobs.database import tables
from jobs.database.records import read_record, read_records, text_with_json


@dataclass(frozen=True)
class Place:
    city: str
    street: str


@dataclass(frozen=True)
class Shop:
    name: str
    categories: tuple[str, ...]
    place: Place
    is_open: bool = True


def test_fields_are_read_by_name_with_nested_records_and_tuples(connection: Connection) -> None:
    rows = connection.execute(
        text("""
            SELECT 1 AS ignored, 'Main' AS street, 'Rome' AS city, ARRAY['hat', 'shoes'] AS categories, 'A' AS name
            UNION ALL SELECT 2, 'Side', 'Oslo', NULL, 'B'
        """)
    )
    assert list(read_records(rows, Shop)) == [
        Shop("A", ("hat", "shoes"), Place("Rome", "Main")),
        Shop("B", (), Place("Oslo", "Side")),
    ]


def test_a_missing_row_is_none_and_a_missing_column_an_error(connection: Connection) -> None:
    assert read_record(connection.execute(text("SELECT 'x' AS city, 'y' AS street WHERE false")), Place) is None
    with pytest.raises(TypeError, match="street"):
        read_record(connection.execute(text("SELECT 'x' AS city")), Place)


def test_bytes_and_json_are_values_of_python(connection: Connection) -> None:
    statement = text_with_json("SELECT CAST(:some AS jsonb), CAST(:none AS jsonb) IS NULL, sha256('x')", "some", "none")
    document, is_null, digest = connection.execute(statement, {"some": {"a": [1, None]}, "none": None}).one()
    assert (document, is_null, type(digest), len(digest)) == ({"a": [1, None]}, True, bytes, 32)
    with pytest.raises(Exception, match="not JSON compliant"):
        connection.execute(statement, {"some": float("nan"), "none": None})


@pytest.mark.parametrize("table", [value for value in vars(tables).values() if isinstance(value, FromClause)], ids=str)
def test_declared_columns_exist(connection: Connection, table: FromClause) -> None:
    assert connection.execute(select(table).limit(1)).all() == []
