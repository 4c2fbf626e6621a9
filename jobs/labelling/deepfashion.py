"""Format ``deepfashion``: DeepFashion as Parquet files that hold the photos themselves.

The layout is that of SaffalPoosh/deepFashion-with-masks; readers of it disagree on the name of the photo's column.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.errors import PermanentError
from jobs.labelling.deepfashion_in_shop import find_partition_file, read_in_shop
from jobs.labelling.label_row import BadRow, LabelRow, RowFault, make_row

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
