"""Format ``folders``: each folder is a label, and the files in it and below it are its photos."""

import os
from collections.abc import Iterator
from pathlib import Path

from jobs.errors import PermanentError
from jobs.retrain.labels.label_row import BadRow, LabelRow, RowFault, make_row, show_text

SYSTEM_FOLDERS = {"@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "__MACOSX", "lost+found"}
"""What file servers and operating systems leave beside the photos."""


def read_folders(source: Path) -> Iterator[LabelRow | BadRow]:
    """Yield every photo, folder by folder, but no hidden or system files; ``line`` is the number of the file."""
    if not source.is_dir():
        raise PermanentError(f"{source} is no folder: folders expects one with a folder for each label")
    for number, path in enumerate(_walk_files(source), start=1):
        key = path.relative_to(source).as_posix()
        label, _, name = key.partition("/")
        if not name:
            yield BadRow(number, show_text(key), RowFault.NO_LABEL, "lies in no folder that would be its label")
        else:
            yield make_row(number, key, path, label)


def _walk_files(source: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(source):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in SYSTEM_FOLDERS)
        yield from (Path(folder, name) for name in sorted(files) if not name.startswith("."))
