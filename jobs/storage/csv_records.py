"""The records of a CSV file as people and spreadsheets write them: a bad one spoils no other."""

import csv
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class CsvRecord:
    """The fields of a record, and the line where it starts."""

    line: int
    fields: list[str]


@dataclass(frozen=True)
class BadRecord:
    """What cannot be read as a record, and the line where it starts."""

    line: int
    detail: str


@dataclass(frozen=True)
class Header:
    """The names of the columns, in small letters, in order."""

    names: tuple[str, ...]

    def find(self, *names: str) -> int | None:
        """The position of the first of these columns that there is."""
        return next((self.names.index(name) for name in names if name in self.names), None)


class _Lines:
    """Lines with their numbers, which can be given back."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._source = iter(lines)
        self._returned: deque[tuple[int, str]] = deque()
        self._count = 0
        self.taken: list[tuple[int, str]] = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if self._returned:
            self.taken.append(self._returned.popleft())
        else:
            line = next(self._source)
            self._count += 1
            self.taken.append((self._count, line))
        return self.taken[-1][1]

    def give_back_all_but_first(self) -> None:
        self._returned.extendleft(reversed(self.taken[1:]))


def read_records(lines: Iterable[str]) -> tuple[Header, Iterator[CsvRecord | BadRecord]]:
    """Read the header, and the records behind it as they are asked for; blank lines are passed over.

    Where a record runs over several lines and does not fit the header, its quote was left open: its first line is bad,
    and the next record begins with the second.
    """
    source = _Lines(lines)
    first = next(_read(source, None), None)
    fields = first.fields if isinstance(first, CsvRecord) else []
    header = Header(tuple(field.strip().casefold() for field in fields))
    return header, _read(source, len(header.names))


def _read(lines: _Lines, columns: int | None) -> Iterator[CsvRecord | BadRecord]:
    reader = csv.reader(lines)
    while True:
        lines.taken = []
        try:
            fields, fault = next(reader), None
        except StopIteration:
            return
        except csv.Error as error:
            fields, fault = [], str(error)
        line, last_line = lines.taken[0][0], lines.taken[-1][0]
        if fault is None and last_line > line and len(fields) != columns:
            fault = f"{len(fields)} fields instead of {columns}"
        if fault is None:
            fault = _find_open_quote([text for _, text in lines.taken])
        if fault is not None:
            lines.give_back_all_but_first()
            where = f" (lines {line} to {last_line}: is a quote left open?)" if last_line > line else ""
            yield BadRecord(line, fault + where)
        elif fields:
            yield CsvRecord(line, fields)


def _find_open_quote(lines: list[str]) -> str | None:
    """What is wrong with the quotes of a record, where that made it longer than it was meant to be.

    The reader takes a quote in the middle of a field for a character, and the end of the file for that of a quote.
    """
    if len(lines) == 1 and lines[0].count('"') % 2 == 0:
        return None
    try:
        list(csv.reader(lines, strict=True))
    except csv.Error as error:
        return str(error) if len(lines) > 1 or "unexpected end" in str(error) else None
    return None
