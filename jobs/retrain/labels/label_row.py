"""A row of labels: its fields, checked, and its photo."""

import enum
import unicodedata
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from jobs.failures import ObjectFault, Reason
from jobs.ingest.read import DETAILS
from jobs.storage.object_store import ObjectStore
from jobs.storage.uri import S3Uri

NO_LABELS = {"", "-", "--", "?", "nan", "-nan", "null", "none", "na", "n/a", "#n/a", "<na>"}
"""What tables say where a label is missing, in small letters."""
LONGEST_NAME_BYTES = 1024
"""Of a key, a category or a group: as long as a key of S3 may be."""


class RowFault(enum.StrEnum):
    """Why a row was skipped before its photo was read; reading and decoding add `ObjectFault` and `Reason`."""

    NO_IMAGE = "no_image"
    NO_LABEL = "no_label"
    FIELD_COUNT = "wrong_number_of_fields"
    NOT_UTF8 = "not_utf8"
    MALFORMED = "malformed"
    REPEATED = "repeated_image"
    OUTSIDE = "outside_the_folder"
    MISSING = "file_missing"
    UNREADABLE = "file_unreadable"
    WRONG_COUNT = "wrong_count"


@dataclass(frozen=True)
class BucketPhoto:
    """A photo as a bucket listed it."""

    location: S3Uri
    etag: str
    size_bytes: int


Photo = Path | bytes | BucketPhoto


@dataclass(frozen=True)
class LabelRow:
    """A labelled photo whose bytes nobody has read yet.

    ``line`` counts from 1: the line of a text file where the row starts, else the row's or file's number. A
    ``group_name`` of None stands for the product that ``source_key`` names by CATALOG_PRODUCT_ID_PATTERN.
    """

    line: int
    source_key: str
    photo: Photo
    category: str
    title: str
    description: str
    group_name: str | None


@dataclass(frozen=True)
class BadRow:
    """A row that was skipped; ``source_key`` is empty where the row does not even name its photo."""

    line: int
    source_key: str
    reason: RowFault | Reason | ObjectFault
    detail: str


def make_row(
    line: int,
    source_key: str,
    photo: Photo,
    category: str,
    *,
    title: str = "",
    description: str = "",
    group_name: str | None = "",
) -> LabelRow | BadRow:
    """A row whose texts a database can hold; without a group, the photo is a group of its own."""
    texts = [source_key, category, title, description, group_name or ""]
    if any(has_broken_characters(text) for text in texts):
        return BadRow(line, show_text(source_key), RowFault.NOT_UTF8, "holds bytes that are no UTF-8")
    # Postgres holds no NUL in a text.
    key, category, title, description, group = (text.replace("\0", "").strip() for text in texts)
    category = tidy_category(category)
    if not key:
        return BadRow(line, "", RowFault.NO_IMAGE, "names no image")
    if isinstance(photo, Path) and "\0" in str(photo):
        return BadRow(line, key, RowFault.MALFORMED, "a NUL in the name of the image")
    if category.casefold() in NO_LABELS:
        return BadRow(line, key, RowFault.NO_LABEL, f"has no label but {category!r}" if category else "has no label")
    if max(len(text.encode()) for text in (key, category, group)) > LONGEST_NAME_BYTES:
        detail = f"an image, label or group of more than {LONGEST_NAME_BYTES} bytes"
        return BadRow(line, key[:LONGEST_NAME_BYTES], RowFault.MALFORMED, detail)
    return LabelRow(line, key, photo, category, title, description, None if group_name is None else group or key)


def tidy_category(text: str) -> str:
    """The same name for all that look the same: one Unicode form, plain spaces, no characters that nobody sees."""
    seen = "".join(character for character in unicodedata.normalize("NFC", text) if not _is_invisible(character))
    return " ".join(seen.split())


def _is_invisible(character: str) -> bool:
    """A zero-width space, say, or a control character; white space is neither."""
    return unicodedata.category(character) in ("Cf", "Cc") and not character.isspace()


def has_broken_characters(text: str) -> bool:
    """Whether bytes that are no UTF-8 hide in a text that was decoded with ``surrogateescape``."""
    return any("\ud800" <= character <= "\udfff" for character in text)


def show_text(text: str) -> str:
    """The same text with a mark in place of each byte that is no UTF-8."""
    return text.encode(errors="surrogateescape").decode(errors="replace")


def leaves_folder(name: str) -> bool:
    """Whether a relative path leads out of the folder that it starts from."""
    path = PurePosixPath(name)
    return path.is_absolute() or ".." in path.parts


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
