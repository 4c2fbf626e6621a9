"""A row of labels: validate its fields and read its image."""

import enum
import unicodedata
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from jobs.failures import DecodeReason, ReadReason
from jobs.ingest.read import DETAILS
from jobs.storage.locations import S3Uri
from jobs.storage.object_store import ObjectStore

MISSING_LABELS = {"", "-", "--", "?", "nan", "-nan", "null", "none", "na", "n/a", "#n/a", "<na>"}
"""Values that mean a missing label in tables, in lower case."""
MAX_NAME_BYTES = 1024
"""Limit for a key, a category or a group. S3 allows keys of this length."""


class SkipReason(enum.StrEnum):
    """Why a row is skipped before its image is read. Reading and decoding add `ReadReason` and `DecodeReason`."""

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
class BucketImage:
    """An image in a bucket, with the ETag and size from the bucket's listing."""

    location: S3Uri
    etag: str
    size_bytes: int


ImageSource = Path | bytes | BucketImage


@dataclass(frozen=True)
class LabelRow:
    """A labeled image whose bytes have not been read yet.

    ``line`` starts at 1. It is the line of a text file on which the row starts, otherwise the number of the row or
    file. If ``group_name`` is None, the group is the product id that CATALOG_PRODUCT_ID_PATTERN matches in the key.
    """

    line: int
    source_key: str
    image: ImageSource
    category: str
    title: str
    description: str
    group_name: str | None


@dataclass(frozen=True)
class SkippedRow:
    """A row that cannot be imported. ``source_key`` is empty if the row does not name its image."""

    line: int
    source_key: str
    reason: SkipReason | DecodeReason | ReadReason
    detail: str


def make_row(
    line: int,
    source_key: str,
    image: ImageSource,
    category: str,
    *,
    title: str = "",
    description: str = "",
    group_name: str | None = "",
) -> LabelRow | SkippedRow:
    """Validate the fields of a row and clean its texts for Postgres. An image without a group is its own group."""
    texts = [source_key, category, title, description, group_name or ""]
    if any(has_undecodable_bytes(text) for text in texts):
        return SkippedRow(line, replace_undecodable_bytes(source_key), SkipReason.NOT_UTF8, "not valid UTF-8")
    # Postgres rejects NUL characters in text.
    key, category, title, description, group = (text.replace("\0", "").strip() for text in texts)
    category = normalize_category(category)
    if not key:
        return SkippedRow(line, "", SkipReason.NO_IMAGE, "the row does not name an image")
    if isinstance(image, Path) and "\0" in str(image):
        return SkippedRow(line, key, SkipReason.MALFORMED, "the image name contains a NUL character")
    if category.casefold() in MISSING_LABELS:
        detail = f"the label {category!r} means that the label is missing" if category else "the label is empty"
        return SkippedRow(line, key, SkipReason.NO_LABEL, detail)
    if max(len(text.encode()) for text in (key, category, group)) > MAX_NAME_BYTES:
        detail = f"the image name, label or group is longer than {MAX_NAME_BYTES} bytes"
        return SkippedRow(line, key[:MAX_NAME_BYTES], SkipReason.MALFORMED, detail)
    return LabelRow(line, key, image, category, title, description, None if group_name is None else group or key)


def normalize_category(text: str) -> str:
    """Map names that look the same to one name: Unicode NFC, single plain spaces, no invisible characters."""
    visible = "".join(character for character in unicodedata.normalize("NFC", text) if not _is_invisible(character))
    return " ".join(visible.split())


def _is_invisible(character: str) -> bool:
    """Return whether this is a format or control character, such as a zero-width space, but not whitespace."""
    return unicodedata.category(character) in ("Cf", "Cc") and not character.isspace()


def has_undecodable_bytes(text: str) -> bool:
    """Return whether a text that was decoded with ``surrogateescape`` contains bytes that are not UTF-8."""
    return any("\ud800" <= character <= "\udfff" for character in text)


def replace_undecodable_bytes(text: str) -> str:
    """Replace each byte that is not UTF-8 with the replacement character."""
    return text.encode(errors="surrogateescape").decode(errors="replace")


def leaves_folder(name: str) -> bool:
    """Return whether a path is absolute or contains ``..``."""
    path = PurePosixPath(name)
    return path.is_absolute() or ".." in path.parts


def read_row_image(store: ObjectStore, row: LabelRow, max_bytes: int) -> bytes | SkippedRow:
    """Read the bytes of a row's image, or return the reason why they cannot be read.

    Raises:
        RetryableError, PermanentError: the whole bucket is unavailable.
    """
    match row.image:
        case Path() as path:
            return _read_file(row, path, max_bytes)
        case BucketImage(location, etag, size_bytes):
            content = store.read_unchanged(location, etag, max_bytes, size_bytes)
            return _skip(row, content) if isinstance(content, ReadReason) else content
        case bytes() as content:
            return content if len(content) <= max_bytes else _skip(row, ReadReason.TOO_LARGE)


def measure_image(image: ImageSource) -> int:
    """Return the size in bytes without reading the image, or 0 if its file is missing."""
    match image:
        case Path() as path:
            try:
                return path.stat().st_size
            except OSError:
                return 0
        case BucketImage(size_bytes=size_bytes):
            return size_bytes
        case bytes() as content:
            return len(content)


def _read_file(row: LabelRow, path: Path, max_bytes: int) -> bytes | SkippedRow:
    try:
        if measure_image(path) > max_bytes:
            return _skip(row, ReadReason.TOO_LARGE)
        return path.read_bytes()
    except FileNotFoundError:
        return SkippedRow(row.line, row.source_key, SkipReason.MISSING, f"{path} does not exist")
    except OSError as error:
        return SkippedRow(row.line, row.source_key, SkipReason.UNREADABLE, str(error))


def _skip(row: LabelRow, reason: ReadReason) -> SkippedRow:
    return SkippedRow(row.line, row.source_key, reason, DETAILS[reason])
