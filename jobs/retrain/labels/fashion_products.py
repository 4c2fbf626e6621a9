"""Format ``fashion-products``: the Fashion Product Images set, in the two layouts in which it is handed round."""

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from jobs.errors import PermanentError
from jobs.retrain.labels.csv_table import complain, complain_of_count, find_table, open_table
from jobs.retrain.labels.label_row import BadRow, LabelRow, RowFault, leaves_folder, make_row
from jobs.storage.csv_records import CsvRecord, Header

FILE_NAMES = ("styles.csv", "data.csv")
CAPTION_COLUMNS = ("image", "description", "display name", "category")
STYLE_COLUMNS = ("id", "articletype", "year", "productdisplayname")
PHOTO_FOLDERS = ("", "images", "data")
"""Below the table's folder, where the photos of the layout with captions are looked for, in this order."""


def read_fashion_products(source: Path) -> Iterator[LabelRow | BadRow]:
    """Yield the rows of a CSV file, or of ``styles.csv`` or ``data.csv`` in a folder.

    Kaggle's ``styles.csv`` names products by ``id``, whose photo is ``images/<id>.jpg``; ``articleType`` is the
    label. The other layout has ``image, description, display name, category``.

    Raises:
        PermanentError: the file has the columns of neither.
    """
    path = find_table(source, FILE_NAMES)
    header, records = open_table(path)
    if all(name in header.names for name in STYLE_COLUMNS):
        read_row = partial(_read_style, header=header, folder=path.parent)
    elif all(name in header.names for name in CAPTION_COLUMNS):
        read_row = partial(_read_caption, header=header, folder=path.parent)
    else:
        raise PermanentError(
            f"{path} is neither Kaggle's styles.csv (id, ..., articleType, ..., year, ..., productDisplayName) nor "
            "a CSV file in UTF-8 with image, description, display name and category: fashion-products expects one "
            "of them"
        )
    for record in records:
        yield record if isinstance(record, BadRow) else read_row(record)


def _read_style(record: CsvRecord, header: Header, folder: Path) -> LabelRow | BadRow:
    repaired = _join_surplus(record.fields, header)
    if repaired is None:
        return complain_of_count(record, header)
    values = dict(zip(header.names, repaired, strict=True))
    product_id = values["id"].strip()
    if product_id and not product_id.isdecimal():
        return complain(record, RowFault.MALFORMED, f"the id {product_id[:40]!r} is no number")
    key = f"images/{product_id}.jpg" if product_id else ""
    return make_row(
        record.line,
        key,
        folder / key,
        values["articletype"],
        title=values["productdisplayname"],
        group_name=product_id,
    )


def _join_surplus(fields: list[str], header: Header) -> list[str] | None:
    """As many fields as columns, or None where it is not certain which comma was one too many.

    Names hold commas that nobody quoted, and they come last: the commas are theirs as long as the year, in one of
    the columns before, still is a year.
    """
    count = len(header.names)
    if len(fields) > count and header.names[-1] == "productdisplayname":
        year = fields[header.names.index("year")].strip()
        if re.fullmatch(r"(\d{4}(\.0)?)?", year):
            return [*fields[: count - 1], ",".join(fields[count - 1 :])]
    return fields if len(fields) == count else None


def _read_caption(record: CsvRecord, header: Header, folder: Path) -> LabelRow | BadRow:
    if len(record.fields) != len(header.names):
        return complain_of_count(record, header)
    values = dict(zip(header.names, record.fields, strict=True))
    key = values["image"].strip()
    if leaves_folder(key):
        return BadRow(record.line, key, RowFault.OUTSIDE, "the image must be a path below the file's folder")
    return make_row(
        record.line,
        key,
        _find_photo(folder, key),
        values["category"],
        title=values["display name"],
        description=values["description"],
        group_name=None,
    )


def _find_photo(folder: Path, name: str) -> Path:
    """Where the photo lies; if nowhere, beside the table, so that reading it says so."""
    places = [folder / place / name for place in PHOTO_FOLDERS]
    return next((place for place in places if place.is_file()), places[0])
