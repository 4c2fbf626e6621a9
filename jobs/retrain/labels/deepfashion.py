"""The formats of DeepFashion: category and attribute prediction, and in-shop retrieval."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.errors import PermanentError
from jobs.retrain.labels.label_row import BadRow, LabelRow, RowFault, leaves_folder, make_row, show_text

FILE_NAME = "list_eval_partition.txt"
LIST_FOLDERS = ("", "Eval", "Anno")
PHOTO_FOLDERS = ("", "..", "Img", "../Img")
"""Below the list's folder, where ``img`` may lie."""


def find_partition_file(source: Path) -> Path | None:
    """The list: the file itself, or that of a folder."""
    if source.is_file():
        return source if source.name == FILE_NAME else None
    places = [source / folder / FILE_NAME for folder in LIST_FOLDERS]
    return next((place for place in places if place.is_file()), None)


def read_in_shop(source: Path) -> Iterator[LabelRow | BadRow]:
    """Yield the photos that the list names; the label is the folder above the item's, and the item is the group.

    A count that disagrees with the list is a bad row of the first line, which comes last.

    Raises:
        PermanentError: there is no list, or it does not start with a count and a header.
    """
    path = find_partition_file(source)
    if path is None:
        raise PermanentError(f"{source} holds no {FILE_NAME}: deepfashion-in-shop expects it beside img/")
    folder = next((path.parent / place for place in PHOTO_FOLDERS if (path.parent / place / "img").is_dir()), None)
    with path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
        count, header = file.readline().strip(), file.readline().split()
        if header[:2] != ["image_name", "item_id"]:
            raise PermanentError(f"{path} must start with a line of the count and a line of image_name and item_id")
        rows = 0
        for line, text in enumerate(file, start=3):
            if text.strip():
                rows += 1
                yield _read_in_shop_row(line, text.split(), folder or path.parent)
    if count != str(rows):
        yield BadRow(1, "", RowFault.WRONG_COUNT, f"says {show_text(count)[:40]!r} photos, but {rows} are listed")


def _read_in_shop_row(line: int, fields: list[str], folder: Path) -> LabelRow | BadRow:
    if len(fields) != 3:
        return BadRow(line, "", RowFault.FIELD_COUNT, f"{len(fields)} fields instead of 3")
    name, item_id, _ = fields
    if leaves_folder(name):
        return BadRow(line, show_text(name), RowFault.OUTSIDE, "the image must be a path below the list's folder")
    folders = PurePosixPath(name).parts[:-1]
    if len(folders) < 3:
        return BadRow(line, show_text(name), RowFault.MALFORMED, "must look like img/WOMEN/Dresses/id_00000001/1.jpg")
    label, item_folder = folders[-2:]
    if item_folder != item_id:
        return BadRow(line, show_text(name), RowFault.MALFORMED, f"lies in {item_folder}, but is said to be {item_id}")
    return make_row(line, name, folder / name, label, group_name=item_id)


PHOTO_COLUMNS = ("images", "image", "cloth")
LABEL_COLUMN = "cloth_type"
OPTIONAL_COLUMNS = ("pid", "caption")
ROWS_AT_A_TIME = 64
BUFFER_BYTES = 1_000_000


def read_deepfashion(source: Path) -> Iterator[LabelRow | BadRow]:
    """Yield the rows of a Parquet file, or of all in a folder; a folder with the In-Shop tree is read as such.

    The label is ``cloth_type``, the group ``pid`` and the description ``caption``. ``line`` is the row's number in
    all files together; its key is the file and the row's number in it, for names of photos repeat.

    Raises:
        PermanentError: there is no Parquet file, one is broken, or it lacks a column.
    """
    if find_partition_file(source):
        yield from read_in_shop(source)
        return
    folder, paths = (source.parent, [source]) if source.is_file() else (source, sorted(source.rglob("*.parquet")))
    if not paths:
        raise PermanentError(
            f"{source} holds no Parquet file and no list_eval_partition.txt: deepfashion expects one of them"
        )
    line = 0
    for path in paths:
        name = path.relative_to(folder).as_posix()
        for number, values in enumerate(_read_file(path), start=1):
            line += 1
            yield _read_row(line, f"{name}/{number}", values)


def _read_file(path: Path) -> Iterator[dict[str, Any] | UnicodeDecodeError]:
    """The wanted columns of each row, the photo's as ``photo``; an error in place of a row whose texts are broken."""
    try:
        # Otherwise a whole row group is read at once, and some sets are a single one.
        with pq.ParquetFile(path, pre_buffer=False, buffer_size=BUFFER_BYTES) as file:
            photo = _require_columns(path, file.schema_arrow)
            optional = [name for name in OPTIONAL_COLUMNS if name in file.schema_arrow.names]
            for batch in file.iter_batches(ROWS_AT_A_TIME, columns=[photo, LABEL_COLUMN, *optional]):
                columns = {("photo" if name == photo else name): batch.column(name) for name in batch.schema.names}
                for row in range(batch.num_rows):
                    yield _take_row(columns, row)
    except (pa.ArrowException, OSError) as error:
        raise PermanentError(
            f"{path} cannot be read as Parquet ({error}), which deepfashion expects: fetch it again"
        ) from None


def _require_columns(path: Path, schema: pa.Schema) -> str:
    photo = next((name for name in PHOTO_COLUMNS if name in schema.names), None)
    if photo is None or LABEL_COLUMN not in schema.names:
        raise PermanentError(
            f"{path} has the columns {', '.join(schema.names)}: deepfashion expects {LABEL_COLUMN} and a photo as "
            f"{' or '.join(PHOTO_COLUMNS)}"
        )
    return photo


def _take_row(columns: "dict[str, pa.Array[Any]]", row: int) -> dict[str, Any] | UnicodeDecodeError:
    try:
        return {name: column[row].as_py() for name, column in columns.items()}
    except UnicodeDecodeError as error:
        return error


def _read_row(line: int, key: str, values: dict[str, Any] | UnicodeDecodeError) -> LabelRow | BadRow:
    if isinstance(values, UnicodeDecodeError):
        return BadRow(line, key, RowFault.NOT_UTF8, str(values))
    photo = values["photo"]
    content = photo.get("bytes") if isinstance(photo, dict) else photo
    if not isinstance(content, bytes):
        return BadRow(line, key, RowFault.NO_IMAGE, "holds no bytes of a photo")
    label, caption, pid = (_as_text(values.get(name)) for name in (LABEL_COLUMN, "caption", "pid"))
    return make_row(line, key, content, label, description=caption, group_name=pid)


def _as_text(value: Any) -> str:
    return "" if value is None else str(value)
