"""Read many small objects with obstore. Its Rust client takes an eighth of boto3's CPU time.

The reader reports no errors. If a read fails, the caller repeats it with boto3, which reports the cause.
"""

import logging
from datetime import timedelta
from typing import TYPE_CHECKING

import boto3
from botocore.handlers import VALID_BUCKET

from jobs.storage.locations import S3Uri

if TYPE_CHECKING:
    from obstore.store import S3Store

log = logging.getLogger(__name__)

MAX_FALLBACKS = 20
"""Stop using obstore after this many objects that only boto3 could read. Something in the environment then prevents
it, such as a proxy or a bucket in another region."""


class QuickReader:
    """Read whole objects from one endpoint. Safe to call from several threads."""

    def __init__(
        self, session: boto3.Session, endpoint_url: str | None, connect_seconds: float, read_seconds: float
    ) -> None:
        self._session = session
        self._endpoint_url = endpoint_url
        self._timeouts = timedelta(seconds=connect_seconds), timedelta(seconds=read_seconds)
        self._buckets: dict[str, S3Store] = {}
        self._fallbacks = 0

    def read(self, location: S3Uri, etag: str | None = None, max_bytes: int | None = None) -> bytes | None:
        """Return the bytes of an object if it has this etag and at most this size. Return None on any failure."""
        # An invalid bucket name would crash obstore.
        if self._fallbacks >= MAX_FALLBACKS or not VALID_BUCKET.search(location.bucket):
            return None
        import obstore
        from obstore.exceptions import BaseError

        try:
            bucket = self._open(location.bucket)
            response = obstore.get(bucket, location.key, options={"if_match": f'"{etag}"'} if etag else None)
            # Checked again, because not every endpoint supports If-Match.
            is_same = etag is None or response.meta["e_tag"] == f'"{etag}"'
            is_small = max_bytes is None or response.meta["size"] <= max_bytes
            return response.bytes().to_bytes() if is_same and is_small else None
        # obstore raises built-in exceptions for invalid keys and missing objects.
        except (BaseError, ValueError, OSError) as error:
            log.debug("reading %s with boto3: %s", location, error)
            return None

    def count_fallback(self) -> None:
        """Count an object that boto3 could read but this reader could not."""
        self._fallbacks += 1
        if self._fallbacks == MAX_FALLBACKS:
            log.warning("obstore cannot read this bucket, using boto3, which takes 1 ms longer per object")

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
                # No retries: the caller falls back to boto3, which retries.
                retry_config={"max_retries": 0},
            )
        return store
