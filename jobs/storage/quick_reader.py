"""Reading many small objects through obstore, whose client in Rust takes an eighth of boto3's processor time.

It knows only how to succeed. Whatever it cannot read is asked for again through boto3, which sorts the fault.
"""

import logging
from datetime import timedelta
from typing import TYPE_CHECKING

import boto3
from botocore.handlers import VALID_BUCKET

from jobs.storage.uri import S3Uri

if TYPE_CHECKING:
    from obstore.store import S3Store

log = logging.getLogger(__name__)

MOST_DETOURS = 20
"""Objects that boto3 alone can read, until this reader gives up: it then stands for an environment that it does not
understand, such as a proxy or a bucket of another region."""


class QuickReader:
    """Reads whole objects of one endpoint; safe to call from several threads."""

    def __init__(
        self, session: boto3.Session, endpoint_url: str | None, connect_seconds: float, read_seconds: float
    ) -> None:
        self._session = session
        self._endpoint_url = endpoint_url
        self._timeouts = timedelta(seconds=connect_seconds), timedelta(seconds=read_seconds)
        self._buckets: dict[str, S3Store] = {}
        self._detours = 0

    def read(self, location: S3Uri, etag: str | None = None, max_bytes: int | None = None) -> bytes | None:
        """The bytes of an object, of this etag and at most this size, or None, which says nothing of the reason."""
        # A name that no bucket can have would crash obstore.
        if self._detours >= MOST_DETOURS or not VALID_BUCKET.search(location.bucket):
            return None
        import obstore
        from obstore.exceptions import BaseError

        try:
            bucket = self._open(location.bucket)
            answer = obstore.get(bucket, location.key, options={"if_match": f'"{etag}"'} if etag else None)
            # Not every endpoint honours If-Match.
            is_same = etag is None or answer.meta["e_tag"] == f'"{etag}"'
            is_small = max_bytes is None or answer.meta["size"] <= max_bytes
            return answer.bytes().to_bytes() if is_same and is_small else None
        # Built-in exceptions stand for keys that it cannot name, and objects that are not there.
        except (BaseError, ValueError, OSError) as error:
            log.debug("%s is read through boto3: %s", location, error)
            return None

    def count_detour(self) -> None:
        """Say that boto3 could read an object that this reader could not."""
        self._detours += 1
        if self._detours == MOST_DETOURS:
            log.warning("obstore cannot read this bucket, boto3 can: reading goes on through boto3, some 1 ms slower")

    def _open(self, bucket: str) -> "S3Store":
        store = self._buckets.get(bucket)
        if store is None:
            from obstore.auth.boto3 import Boto3CredentialProvider
            from obstore.store import S3Store

            connect_timeout, read_timeout = self._timeouts
            store = self._buckets[bucket] = S3Store(
                bucket,
                endpoint=self._endpoint_url,
                virtual_hosted_style_request=not self._endpoint_url,
                credential_provider=Boto3CredentialProvider(self._session),
                client_options={"allow_http": True, "connect_timeout": connect_timeout, "read_timeout": read_timeout},
                # boto3 tries again.
                retry_config={"max_retries": 0},
            )
        return store
