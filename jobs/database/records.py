"""Convert rows to records and values to parameters, the same way for every query."""

from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, TypeVar, get_origin, get_type_hints

from sqlalchemy import Result, TextClause, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB

Record = TypeVar("Record")

ISO_8601 = 'YYYY-MM-DD"T"HH24:MI:SS"Z"'
"""Format of times in JSON, for ``to_char`` of a time in UTC."""


def read_records(result: Result[Any], record_type: Callable[..., Record]) -> Iterator[Record]:
    """Yield a dataclass record for each row. Each field is read from the column with its name.

    A field that is itself a dataclass is read from the same row. For a tuple field, an array becomes a tuple and NULL
    an empty tuple. A field without a column keeps its default. A column without a field is ignored.
    """
    build: Callable[[Any], Record] = _make_builder(record_type, tuple(result.keys()))
    return map(build, result)


def read_record(result: Result[Any], record_type: Callable[..., Record]) -> Record | None:
    """Return the only row as a record, or None if there is no row."""
    row = result.one_or_none()
    return None if row is None else _make_builder(record_type, tuple(result.keys()))(row)


@cache
def _make_builder(record_type: Any, columns: tuple[str, ...]) -> Callable[[Any], Any]:
    hints = get_type_hints(record_type)
    names = [field.name for field in fields(record_type)]
    nested = {name: _make_builder(hints[name], columns) for name in names if is_dataclass(hints[name])}
    tuples = {name for name in names if get_origin(hints[name]) is tuple}
    places = [(name, columns.index(name)) for name in names if name in columns and name not in nested]
    if not nested and not tuples and [name for name, _ in places] == list(columns):
        return lambda row: record_type(*row)

    def build(row: Any) -> Any:
        values = {name: tuple(row[place] or ()) if name in tuples else row[place] for name, place in places}
        return record_type(**values, **{name: read(row) for name, read in nested.items()})

    return build


def text_with_json(statement: str, *names: str) -> TextClause:
    """Return a statement that sends the parameters with these names as JSON, and None as NULL."""
    return text(statement).bindparams(*(bindparam(name, type_=JSONB(none_as_null=True)) for name in names))
