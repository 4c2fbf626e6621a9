"""Which version of an object a listing shows, and whether an answer is that version.

S3 declares most fields of its answers optional, and servers take it at its word: no etag, a weak one, one without
quotes or in capitals.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

_WITHOUT_ETAG = "no-etag-"
_MD5 = re.compile(r"[0-9a-fA-F]{32}")


def read_version(item: Mapping[str, Any]) -> tuple[str, int]:
    """The etag and the size in bytes of a line of a listing."""
    size_bytes = int(item.get("Size", 0))
    if etag := item.get("ETag"):
        return strip_etag(etag), size_bytes
    return f"{_WITHOUT_ETAG}{size_bytes}-{_write_time(item.get('LastModified'))}", size_bytes


def strip_etag(etag: str) -> str:
    """The bare etag, without quotes and without the mark of a weak one."""
    return etag.strip().removeprefix("W/").strip('"')


@dataclass(frozen=True)
class ExpectedBody:
    """The version of an object that a listing showed; ``size_bytes`` is None where nobody knows it any more."""

    etag: str
    size_bytes: int | None

    @property
    def is_without_etag(self) -> bool:
        """Whether the listing gave no etag, and size and time stand for it."""
        return self.etag.startswith(_WITHOUT_ETAG)

    @property
    def may_be_checksum(self) -> bool:
        """Whether the etag may be the MD5 of the bytes."""
        return _MD5.fullmatch(self.etag) is not None

    def is_replaced(self, etag: str | None, changed_at: datetime | None) -> bool:
        """Whether an answer, by its headers, is another version; what it does not say does not count."""
        if self.is_without_etag:
            listed_at = self.etag.rpartition("-")[2]
            return bool(listed_at and changed_at and listed_at != _write_time(changed_at))
        return etag is not None and strip_etag(etag).casefold() != self.etag.casefold()


def _write_time(changed_at: datetime | None) -> str:
    # Listings know fractions of a second, headers do not.
    return str(int(changed_at.timestamp())) if changed_at else ""
