"""Locations in object storage, written ``s3://bucket/prefix``."""

from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True)
class S3Uri:
    """A bucket and a key or prefix in it; ``key`` never starts with a slash and may be empty."""

    bucket: str
    key: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``s3://bucket[/key]``.

        Raises:
            ValueError: another scheme, or no bucket.
        """
        scheme, separator, rest = text.partition("://")
        bucket, _, key = rest.partition("/")
        if scheme != "s3" or not separator or not bucket:
            raise ValueError(f"must look like s3://bucket/prefix, not {text!r}")
        return cls(bucket, key)

    def as_folder(self) -> "S3Uri":
        """The same place with a trailing slash, so that ``photos`` does not take in ``photos-old``."""
        return S3Uri(self.bucket, f"{self.key.rstrip('/')}/") if self.key else self

    def is_within(self, folder: "S3Uri") -> bool:
        """Tell whether this folder is that one or below it."""
        return self.bucket == folder.bucket and self.as_folder().key.startswith(folder.as_folder().key)

    def __truediv__(self, name: str) -> "S3Uri":
        return S3Uri(self.bucket, f"{self.key.rstrip('/')}/{name}".lstrip("/"))

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}"
