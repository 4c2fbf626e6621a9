"""Print reports and messages, without the control characters that names and keys from outside may contain.

A report is a table on a terminal. In a pipe, or with ``--json``, it is JSON in the last line of standard output, which
a scheduler reads.
"""

import json
import logging
import re
import sys
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import asdict, dataclass, is_dataclass
from datetime import UTC, datetime
from typing import Any

import typer

_ACTING = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Control characters except line breaks and tabs, and characters that change the direction of text."""

_IS_JSON_CHOSEN: ContextVar[bool | None] = ContextVar("is_json_chosen", default=None)


@dataclass(frozen=True)
class Listing:
    """A table: the names of its columns, and its rows. Without a head, the first column names the rows."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


def show(message: str, *, err: bool = False) -> None:
    """Print text for a person."""
    typer.echo(make_harmless(message), err=err)


def make_harmless(text: str) -> str:
    """Replace each character that a terminal would obey by U+FFFD."""
    return _ACTING.sub("\N{REPLACEMENT CHARACTER}", text)


class HarmlessFormatter(logging.Formatter):
    """Format log lines without control characters."""

    def format(self, record: logging.LogRecord) -> str:
        return make_harmless(super().format(record))


def choose_json(is_json: bool) -> None:
    """Print everything as JSON from now on, or as text, in the current context."""
    _IS_JSON_CHOSEN.set(is_json)


def prints_json() -> bool:
    """Return whether to print JSON: as chosen, otherwise if standard output is not a terminal."""
    chosen = _IS_JSON_CHOSEN.get()
    return not sys.stdout.isatty() if chosen is None else chosen


def print_report(record: Any) -> None:
    """Print a record: a table on a terminal, otherwise JSON."""
    if prints_json():
        _print_json(record)
        return
    from jobs.commands.tables import print_fields

    print_fields(_to_plain(record))


def print_text(record: Any, text: str) -> None:
    """Print a text on a terminal, otherwise the record that it describes as JSON."""
    if prints_json():
        _print_json(record)
    else:
        show(text)


def print_table(records: Sequence[Any], listing: Listing) -> None:
    """Print a table on a terminal, otherwise the records that it describes as JSON."""
    if prints_json():
        _print_json(list(records))
        return
    from jobs.commands.tables import print_listing

    print_listing(listing)


def print_sections(record: Any, sections: Mapping[str, Listing], end: str) -> None:
    """Print tables below their titles, and a last line, on a terminal. Otherwise, print the record as JSON."""
    if prints_json():
        _print_json(record)
        return
    from jobs.commands.tables import print_titled

    print_titled(sections, end)


def _print_json(record: Any) -> None:
    records = [_to_plain(one) for one in record] if isinstance(record, list) else _to_plain(record)
    typer.echo(json.dumps(records, default=_encode))


def _to_plain(record: Any) -> Any:
    return asdict(record) if is_dataclass(record) and not isinstance(record, type) else record


def _encode(value: Any) -> str:
    """Encode a time in ISO 8601. Other types are an error."""
    if not isinstance(value, datetime):
        raise TypeError(f"{type(value).__name__} has no JSON form")
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
