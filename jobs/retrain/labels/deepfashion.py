"""Read labels from the DeepFashion data sets: In-Shop retrieval, and Parquet files of categories and captions."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.errors import RefusedError
from jobs.retrain.labels.label_row import (
    LabelRow,
    SkippedRow,
    SkipReason,
    leaves_folder,
    make_row,
    replace_undecodable_bytes,
)

PARTITION_FILE = "list_eval_partition.txt"
LIST_FOLDERS = ("", "Eval", "Anno")
IMAGE_FOLDERS = ("", "..", "Img", "../Img")
"""Folders that may contain ``img``, relative to the folder of the list."""


def read_in_shop(source: Path) -> Iterator[LabelRow | SkippedRow]:
    """Yield the images of the In-Shop list. The label is the folder above the item's folder; the item is the group.

    If the number of rows differs from the count in line 1, the last row is a `SkippedRow` for line 1.

    Raises:
        RefusedError: the list is missing, or does not start with a count and a header.
    """
    path = find_partition_file(source)
    if path is None:
        raise RefusedError(f"{source} holds no {PARTITION_FILE}. deepfashion-in-shop expects it next to img/")
    folder = next((path.parent / place for place in IMAGE_FOLDERS if (path.parent / place / "img").is_dir()), None)
    with path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
        count, header = file.readline().strip(), file.readline().split()
        if header[:2] != ["image_name", "item_id"]:
            raise RefusedError(f"{path} must start with a line with the count and a line with image_name and item_id")
        rows = 0
        for line, text in enumerate(file, start=3):
            if text.strip():
                rows += 1
                yield _read_in_shop_row(line, text.split(), folder or path.parent)
    if count != str(rows):
        detail = f"the first line gives a count of {replace_undecodable_bytes(count)[:40]!r}, but {rows} rows follow"
        yield SkippedRow(1, "", SkipReason.WRONG_COUNT, detail)


def find_partition_file(source: Path) -> Path | None:
    """Return the In-Shop list: the file itself, or the one in a folder."""
    if source.is_file():
        return source if source.name == PARTITION_FILE else None
    places = [source / folder / PARTITION_FILE for folder in LIST_FOLDERS]
    return next((place for place in places if place.is_file()), None)


def _read_in_shop_row(line: int, fields: list[str], folder: Path) -> LabelRow | SkippedRow:
    if len(fields) != 3:
        return SkippedRow(line, "", SkipReason.FIELD_COUNT, f"{len(fields)} fields instead of 3")
    name, item_id, _ = fields
    key = replace_undecodable_bytes(name)
    if leaves_folder(name):
        return SkippedRow(line, key, SkipReason.OUTSIDE, "the image must be a path below the folder of the list")
    folders = PurePosixPath(name).parts[:-1]
    if len(folders) < 3:
        detail = "the path must look like img/WOMEN/Dresses/id_00000001/1.jpg"
        return SkippedRow(line, key, SkipReason.MALFORMED, detail)
    label, item_folder = folders[-2:]
    if item_folder != item_id:
        detail = f"the image is in the folder {item_folder}, but its item_id is {item_id}"
        return SkippedRow(line, key, SkipReason.MALFORMED, detail)
    return make_row(line, name, folder / name, label, group_name=item_id)


IMAGE_COLUMNS = ("images", "image", "cloth")
LABEL_COLUMN = "cloth_type"
OPTIONAL_COLUMNS = ("pid", "caption")
BATCH_ROWS = 64
BUFFER_BYTES = 1_000_000


def read_deepfashion(source: Path) -> Iterator[LabelRow | SkippedRow]:
    """Yield the rows of a Parquet file or of all Parquet files in a folder. An In-Shop list takes precedence.

    The label is ``cloth_type``, the group ``pid`` and the description ``caption``. ``line`` numbers the rows across all
    files. The key consists of the file and the row's number in it, because image names are not unique.

    Raises:
        RefusedError: there is no Parquet file, or a file is damaged or lacks a column.
    """
    if find_partition_file(source):
        yield from read_in_shop(source)
        return
    folder, paths = (source.parent, [source]) if source.is_file() else (source, sorted(source.rglob("*.parquet")))
    if not paths:
        raise RefusedError(f"{source} holds no Parquet file and no {PARTITION_FILE}. deepfashion expects one of them")
    line = 0
    for path in paths:
        name = path.relative_to(folder).as_posix()
        for number, values in enumerate(_read_file(path), start=1):
            line += 1
            yield _read_row(line, f"{name}/{number}", values)


def _read_file(path: Path) -> Iterator[dict[str, Any] | UnicodeDecodeError]:
    """Yield the columns that we use, with the image as ``image``, or the error if a text of the row is not UTF-8."""
    try:
        # By default, pyarrow reads a whole row group at once, and some data sets are a single row group.
        with pq.ParquetFile(path, pre_buffer=False, buffer_size=BUFFER_BYTES) as file:
            image = _require_columns(path, file.schema_arrow)
            optional = [name for name in OPTIONAL_COLUMNS if name in file.schema_arrow.names]
            for batch in file.iter_batches(BATCH_ROWS, columns=[image, LABEL_COLUMN, *optional]):
                columns = {("image" if name == image else name): batch.column(name) for name in batch.schema.names}
                for row in range(batch.num_rows):
                    yield _take_row(columns, row)
    except (pa.ArrowException, OSError) as error:
        raise RefusedError(
            f"{path} cannot be read as Parquet ({error}). deepfashion expects Parquet. Download the file again"
        ) from None


def _require_columns(path: Path, schema: pa.Schema) -> str:
    image = next((name for name in IMAGE_COLUMNS if name in schema.names), None)
    if image is None or LABEL_COLUMN not in schema.names:
        raise RefusedError(
            f"{path} has the columns {', '.join(schema.names)}. deepfashion expects {LABEL_COLUMN} and an image column "
            f"named {' or '.join(IMAGE_COLUMNS)}"
        )
    return image


def _take_row(columns: "dict[str, pa.Array[Any]]", row: int) -> dict[str, Any] | UnicodeDecodeError:
    try:
        return {name: column[row].as_py() for name, column in columns.items()}
    except UnicodeDecodeError as error:
        return error


def _read_row(line: int, key: str, values: dict[str, Any] | UnicodeDecodeError) -> LabelRow | SkippedRow:
    if isinstance(values, UnicodeDecodeError):
        return SkippedRow(line, key, SkipReason.NOT_UTF8, str(values))
    image = values["image"]
    content = image.get("bytes") if isinstance(image, dict) else image
    if not isinstance(content, bytes):
        return SkippedRow(line, key, SkipReason.NO_IMAGE, "the row contains no image bytes")
    texts = (values.get(name) for name in (LABEL_COLUMN, "caption", "pid"))
    label, caption, pid = ("" if text is None else str(text) for text in texts)
    return make_row(line, key, content, label, description=caption, group_name=pid)
