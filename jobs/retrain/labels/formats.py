"""The label formats and their readers. To add a format, add a line to `READERS`."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from jobs.errors import NotFoundError, RefusedError
from jobs.retrain.labels.csv_formats import read_csv_table, read_fashion_products
from jobs.retrain.labels.deepfashion import read_deepfashion, read_in_shop
from jobs.retrain.labels.label_row import LabelRow, SkippedRow, SkipReason, make_row, replace_undecodable_bytes

SYSTEM_FOLDERS = {"@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "__MACOSX", "lost+found"}
"""Folders that file servers and operating systems create."""


def read_folders(source: Path) -> Iterator[LabelRow | SkippedRow]:
    """Yield the files below ``source``. The top-level folder of a file is its label; ``line`` numbers the files.

    Hidden files, hidden folders and system folders are ignored.
    """
    if not source.is_dir():
        raise RefusedError(f"{source} is not a folder. folders expects a folder with one subfolder for each label")
    for number, path in enumerate(_walk_files(source), start=1):
        key = path.relative_to(source).as_posix()
        label, _, name = key.partition("/")
        if name:
            yield make_row(number, key, path, label)
        else:
            detail = "the file is not in a subfolder, which would be its label"
            yield SkippedRow(number, replace_undecodable_bytes(key), SkipReason.NO_LABEL, detail)


def _walk_files(source: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(source):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in SYSTEM_FOLDERS)
        yield from (Path(folder, name) for name in sorted(files) if not name.startswith("."))


Reader = Callable[[Path], Iterator[LabelRow | SkippedRow]]
"""Yields the rows of a file or folder while reading, without holding all of them in memory."""

READERS: dict[str, Reader] = {
    "folders": read_folders,
    "csv": read_csv_table,
    "fashion-products": read_fashion_products,
    "deepfashion": read_deepfashion,
    "deepfashion-in-shop": read_in_shop,
}


def read_rows(format_name: str, source: Path) -> Iterator[LabelRow | SkippedRow]:
    """Return the rows of a file or folder.

    Raises:
        PermanentError: the format or the source does not exist, or the source has another format. The latter error
            is raised while rows are read.
    """
    reader = READERS.get(format_name)
    if reader is None:
        raise RefusedError(f"unknown format {format_name!r}. Choose one of {', '.join(READERS)}")
    if not source.exists():
        raise NotFoundError(f"{source} does not exist")
    return reader(source)
