"""The bytes of a row's photo, wherever they are."""

from pathlib import Path

from jobs.labelling.label_row import BadRow, BucketPhoto, LabelRow, Photo, RowFault
from jobs.storage.faults import ObjectFault
from jobs.storage.object_store import ObjectStore
from jobs.tagging.read import DETAILS


def read_photo(store: ObjectStore, row: LabelRow, max_bytes: int) -> bytes | BadRow:
    """Read the photo of one row, or say why it cannot be had.

    Raises:
        RetryableError, PermanentError: the bucket as a whole does not answer.
    """
    match row.photo:
        case Path() as path:
            return _read_file(row, path, max_bytes)
        case BucketPhoto(location, etag, size_bytes):
            content = store.read_unchanged(location, etag, max_bytes, size_bytes)
            return _complain(row, content) if isinstance(content, ObjectFault) else content
        case bytes() as content:
            return content if len(content) <= max_bytes else _complain(row, ObjectFault.TOO_LARGE)


def measure_photo(photo: Photo) -> int:
    """Its size in bytes, before it is read; 0 for a file that is not there."""
    match photo:
        case Path() as path:
            try:
                return path.stat().st_size
            except OSError:
                return 0
        case BucketPhoto(size_bytes=size_bytes):
            return size_bytes
        case bytes() as content:
            return len(content)


def _read_file(row: LabelRow, path: Path, max_bytes: int) -> bytes | BadRow:
    try:
        if measure_photo(path) > max_bytes:
            return _complain(row, ObjectFault.TOO_LARGE)
        return path.read_bytes()
    except FileNotFoundError:
        return BadRow(row.line, row.source_key, RowFault.MISSING, f"there is no {path}")
    except OSError as error:
        return BadRow(row.line, row.source_key, RowFault.UNREADABLE, str(error))


def _complain(row: LabelRow, fault: ObjectFault) -> BadRow:
    return BadRow(row.line, row.source_key, fault, DETAILS[fault])
