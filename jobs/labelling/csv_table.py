"""Format ``csv``: a table of images and labels, with texts and groups where it has them."""

from collections.abc import Iterator
from pathlib import Path

from jobs.csv_records import CsvRecord, Header
from jobs.errors import PermanentError
from jobs.labelling.label_row import BadRow, LabelRow, RowFault, leaves_folder, make_row
from jobs.labelling.label_table import complain_of_count, find_table, open_table

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
