"""Read labels from CSV files: our own table, and both layouts of the Fashion Product Images data set."""

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from jobs.errors import RefusedError
from jobs.retrain.labels.label_row import LabelRow, SkippedRow, SkipReason, leaves_folder, make_row
from jobs.storage.csv_records import BadRecord, CsvRecord, Header, read_csv_records

Values = dict[str, str]
"""The fields of one record by column name."""

CSV_FILE_NAME = "labels.csv"
FASHION_FILE_NAMES = ("styles.csv", "data.csv")
CAPTION_COLUMNS = ("image", "description", "display name", "category")
STYLE_COLUMNS = ("id", "articletype", "year", "productdisplayname")
IMAGE_FOLDERS = ("", "images", "data")
"""Folders next to ``data.csv`` that may hold the images, in the order in which they are tried."""


def read_csv_table(source: Path) -> Iterator[LabelRow | SkippedRow]:
    """Yield the rows of a CSV file, or of ``labels.csv`` in a folder.

    Required columns are ``image`` (or ``path``), relative to the folder of the file, and ``label``. Optional columns
    are ``text`` (or ``description``), ``title``, and ``group`` (or ``contributor``).

    Raises:
        RefusedError: a required column is missing.
    """
    path = find_table(source, [CSV_FILE_NAME])
    header, records = open_table(path)
    if header.find("image", "path") is None or header.find("label") is None:
        raise RefusedError(
            f"{path} does not have the columns image and label. csv expects a CSV file in UTF-8 with the "
            "columns image and label, and optionally text, title and group"
        )

    def read_row(line: int, values: Values) -> LabelRow | SkippedRow:
        def get(*names: str) -> str:
            return next((values[name] for name in names if name in values), "")

        key = get("image", "path").strip()
        if leaves_folder(key):
            return _skip_outside(line, key)
        return make_row(
            line,
            key,
            path.parent / key,
            get("label"),
            title=get("title"),
            description=get("text", "description"),
            group_name=get("group", "contributor"),
        )

    return _read_rows(header, records, read_row)


def read_fashion_products(source: Path) -> Iterator[LabelRow | SkippedRow]:
    """Yield the rows of a CSV file, or of ``styles.csv`` or ``data.csv`` in a folder.

    In Kaggle's ``styles.csv``, ``id`` names a product with the image ``images/<id>.jpg``, and ``articleType`` is the
    label. The other layout has the columns ``image, description, display name, category``.

    Raises:
        RefusedError: the columns match neither layout.
    """
    path = find_table(source, FASHION_FILE_NAMES)
    header, records = open_table(path)
    if all(name in header.names for name in STYLE_COLUMNS):
        return _read_rows(header, records, lambda line, values: _read_style(line, values, path.parent), _join_surplus)
    if all(name in header.names for name in CAPTION_COLUMNS):
        return _read_rows(header, records, lambda line, values: _read_caption(line, values, path.parent))
    raise RefusedError(
        f"{path} is neither Kaggle's styles.csv (id, ..., articleType, ..., year, ..., productDisplayName) nor a CSV "
        "file in UTF-8 with image, description, display name and category. fashion-products expects one of them"
    )


def find_table(source: Path, preferred: Sequence[str]) -> Path:
    """Return the file itself. For a folder, return the preferred CSV file or the only one.

    Raises:
        RefusedError: the folder contains no CSV file, or several.
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
    raise RefusedError(f"{source} holds {found}. Pass the path of the file, or rename it to {preferred[0]}")


def open_table(path: Path) -> tuple[Header, Iterator[CsvRecord | BadRecord]]:
    """Return the header and an iterator that reads the records on demand. A byte-order mark is ignored.

    Bytes that are not UTF-8 become lone surrogates, so only their own record is skipped.
    """

    def read_lines() -> Iterator[str]:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            yield from file

    return read_csv_records(read_lines())


def _read_rows(
    header: Header,
    records: Iterator[CsvRecord | BadRecord],
    read_row: Callable[[int, Values], LabelRow | SkippedRow],
    repair: Callable[[list[str], Header], list[str]] = lambda fields, header: fields,
) -> Iterator[LabelRow | SkippedRow]:
    for record in records:
        if isinstance(record, BadRecord):
            yield SkippedRow(record.line, "", SkipReason.MALFORMED, record.detail)
            continue
        fields = repair(record.fields, header)
        if len(fields) == len(header.names):
            # If several columns have the same name, use the first.
            yield read_row(record.line, dict(zip(reversed(header.names), reversed(fields), strict=True)))
        else:
            detail = f"{len(record.fields)} fields instead of {len(header.names)}"
            yield SkippedRow(record.line, "", SkipReason.FIELD_COUNT, detail)


def _skip_outside(line: int, key: str) -> SkippedRow:
    return SkippedRow(line, key, SkipReason.OUTSIDE, "the image must be a path below the folder of the file")


def _read_style(line: int, values: Values, folder: Path) -> LabelRow | SkippedRow:
    product_id = values["id"].strip()
    if product_id and not product_id.isdecimal():
        return SkippedRow(line, "", SkipReason.MALFORMED, f"the id {product_id[:40]!r} is not a number")
    key = f"images/{product_id}.jpg" if product_id else ""
    return make_row(
        line,
        key,
        folder / key,
        values["articletype"],
        title=values["productdisplayname"],
        group_name=product_id,
    )


def _join_surplus(fields: list[str], header: Header) -> list[str]:
    """Merge surplus fields into the product name if they clearly come from unquoted commas in it.

    The name is the last column. If the year, an earlier column, is valid or empty, the surplus commas are in the name.
    """
    count = len(header.names)
    if len(fields) > count and header.names[-1] == "productdisplayname":
        year = fields[header.names.index("year")].strip()
        if re.fullmatch(r"(\d{4}(\.0)?)?", year):
            return [*fields[: count - 1], ",".join(fields[count - 1 :])]
    return fields


def _read_caption(line: int, values: Values, folder: Path) -> LabelRow | SkippedRow:
    key = values["image"].strip()
    if leaves_folder(key):
        return _skip_outside(line, key)
    places = [folder / place / key for place in IMAGE_FOLDERS]
    return make_row(
        line,
        key,
        next((place for place in places if place.is_file()), places[0]),
        values["category"],
        title=values["display name"],
        description=values["description"],
        group_name=None,
    )
