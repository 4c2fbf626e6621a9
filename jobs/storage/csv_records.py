"""Read CSV files written by people and spreadsheets. Report bad records without affecting other records."""

import csv
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class CsvRecord:
    """The fields of a record, and the number of its first line."""

    line: int
    fields: list[str]


@dataclass(frozen=True)
class BadRecord:
    """The reason why lines cannot be read as a record, and the number of the first of these lines."""

    line: int
    detail: str


@dataclass(frozen=True)
class Header:
    """The column names in lower case, in order."""

    names: tuple[str, ...]

    def find(self, *names: str) -> int | None:
        """Return the position of the first of these names that is a column, or None."""
        return next((self.names.index(name) for name in names if name in self.names), None)


class _Lines:
    """Iterate over numbered lines. Lines can be put back, to be read again."""

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

    def return_all_but_first(self) -> None:
        self._returned.extendleft(reversed(self.taken[1:]))


def read_csv_records(lines: Iterable[str]) -> tuple[Header, Iterator[CsvRecord | BadRecord]]:
    """Read the header, and return an iterator over the records. Blank lines are skipped.

    If a record spans several lines and does not match the header, a quote was probably never closed. Its first line is
    reported as bad, and reading continues at its second line.
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
            fields, error = next(reader), None
        except StopIteration:
            return
        except csv.Error as csv_error:
            fields, error = [], str(csv_error)
        line, last_line = lines.taken[0][0], lines.taken[-1][0]
        if error is None and last_line > line and len(fields) != columns:
            error = f"{len(fields)} fields instead of {columns}"
        if error is None:
            error = _find_open_quote([text for _, text in lines.taken])
        if error is not None:
            lines.return_all_but_first()
            where = f" (lines {line} to {last_line}: is a quote not closed?)" if last_line > line else ""
            yield BadRecord(line, error + where)
        elif fields:
            yield CsvRecord(line, fields)


def _find_open_quote(lines: list[str]) -> str | None:
    """Return what is wrong with the quotes of a record if they made the record too long, else None.

    Without strict mode, the csv reader accepts a quote inside a field, and the end of the file as a closing quote.
    """
    if len(lines) == 1 and lines[0].count('"') % 2 == 0:
        return None
    try:
        list(csv.reader(lines, strict=True))
    except csv.Error as error:
        return str(error) if len(lines) > 1 or "unexpected end" in str(error) else None
    return None
