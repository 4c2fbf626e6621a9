"""Labels in a CSV file or another table."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from jobs.errors import PermanentError
from jobs.retrain.labels.label_row import BadRow, LabelRow, RowFault, leaves_folder, make_row
from jobs.storage.csv_records import BadRecord, CsvRecord, Header, read_records


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


FILE_NAME = "labels.csv"


def read_csv_table(source: Path) -> Iterator[LabelRow | BadRow]:
    """Yield the rows of a CSV file, or of ``labels.csv`` in a folder.

    Its columns are ``image`` (or ``path``), relative to the file's folder, and ``label``; where it has them, also
    ``text`` (or ``description``), ``title``, and ``group`` (or ``contributor``).

    Raises:
        PermanentError: the file lacks one of the two columns.
    """
    path = find_table(source, [FILE_NAME])
    header, records = open_table(path)
    if header.find("image", "path") is None or header.find("label") is None:
        raise PermanentError(
            f"{path} lacks the columns image and label: csv expects a CSV file in UTF-8 with image, label and, "
            "as you have them, text, title and group"
        )
    for record in records:
        yield record if isinstance(record, BadRow) else _read_row(record, header, path.parent)


def _read_row(record: CsvRecord, header: Header, folder: Path) -> LabelRow | BadRow:
    if len(record.fields) != len(header.names):
        return complain_of_count(record, header)

    def get(*names: str) -> str:
        position = header.find(*names)
        return "" if position is None else record.fields[position]

    key = get("image", "path").strip()
    if leaves_folder(key):
        return BadRow(record.line, key, RowFault.OUTSIDE, "the image must be a path below the file's folder")
    return make_row(
        record.line,
        key,
        folder / key,
        get("label"),
        title=get("title"),
        description=get("text", "description"),
        group_name=get("group", "contributor"),
    )
