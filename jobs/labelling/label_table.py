"""Tables of labels: where they are, and their records, streamed."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from jobs.csv_records import BadRecord, CsvRecord, Header, read_records
from jobs.errors import PermanentError
from jobs.labelling.label_row import BadRow, RowFault


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
    """The header, and the records behind it as they are read; a byte-order mark is passed over.

    Bytes that are no UTF-8 come through as lone surrogates, so that they spoil their own record only.
    """
    header, records = read_records(_read_lines(path))
    return header, map(_as_row_fault, records)


def _read_lines(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        yield from file


def _as_row_fault(record: CsvRecord | BadRecord) -> CsvRecord | BadRow:
    if isinstance(record, BadRecord):
        return BadRow(record.line, "", RowFault.MALFORMED, record.detail)
    return record


def complain(record: CsvRecord, reason: RowFault, detail: str) -> BadRow:
    """The record as a row that is skipped."""
    return BadRow(record.line, "", reason, detail)


def complain_of_count(record: CsvRecord, header: Header) -> BadRow:
    """A record that has more or fewer fields than the header."""
    return complain(record, RowFault.FIELD_COUNT, f"{len(record.fields)} fields instead of {len(header.names)}")
