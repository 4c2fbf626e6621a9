"""The records of a CSV file, streamed, each with the line where it starts."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from jobs.errors import PermanentError
from jobs.labelling.label_row import BadRow, RowFault


@dataclass(frozen=True)
class CsvRecord:
    """The fields of a record; ``last_line`` is another than ``line`` where a quoted field holds line breaks."""

    line: int
    last_line: int
    fields: list[str]

    def complain(self, reason: RowFault, detail: str) -> BadRow:
        """The record as a row that is skipped."""
        lines = f" (lines {self.line} to {self.last_line}: is a quote left open?)" if self.last_line > self.line else ""
        return BadRow(self.line, "", reason, detail + lines)


@dataclass(frozen=True)
class Header:
    """The names of the columns, in small letters, in order."""

    names: tuple[str, ...]

    def find(self, *names: str) -> int | None:
        """The position of the first of these columns that there is."""
        return next((self.names.index(name) for name in names if name in self.names), None)


def find_table(source: Path, preferred: Sequence[str]) -> Path:
    """The file itself, or of a folder the preferred CSV file, or its only one.

    Raises:
        PermanentError: the folder has none, or several.
    """
    if source.is_file():
        return source
    for name in preferred:
        if (source / name).is_file():
            return source / name
    tables = sorted(source.glob("*.csv"))
    if len(tables) == 1:
        return tables[0]
    found = f"{len(tables)} CSV files" if tables else "no CSV file"
    raise PermanentError(f"{source} holds {found}: name the file itself, or call it {preferred[0]}")


def open_table(path: Path) -> tuple[Header, Iterator[CsvRecord | BadRow]]:
    """The header, and the records behind it as they are read; a byte-order mark and blank lines are passed over.

    Bytes that are no UTF-8 come through as lone surrogates, so that they spoil their own record only.
    """
    records = _read_records(path)
    first = next(records, None)
    fields = first.fields if isinstance(first, CsvRecord) else []
    return Header(tuple(field.strip().casefold() for field in fields)), records


def _read_records(path: Path) -> Iterator[CsvRecord | BadRow]:
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.reader(file)
        while True:
            line = reader.line_num + 1
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield CsvRecord(line, reader.line_num, []).complain(RowFault.MALFORMED, str(error))
                continue
            if fields:
                yield CsvRecord(line, reader.line_num, fields)
