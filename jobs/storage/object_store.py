"""List, read and write objects in S3."""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, suppress
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import botocore.exceptions
from boto3.s3.transfer import TransferConfig
from botocore.config import Config

from jobs.errors import ConfigurationError, RetryableError
from jobs.failures import ReadReason
from jobs.storage.credentials import AwsCredentials
from jobs.storage.locations import S3Uri
from jobs.storage.quick_reader import QuickReader
from jobs.storage.s3_errors import (
    BODY_ATTEMPTS,
    BROKEN_BODY_ERRORS,
    OtherBodyError,
    find_reason,
    get_code,
    get_status,
    is_foreign,
    translate_s3_errors,
)

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

CONNECTION_TIMEOUT_SECONDS = 5
READ_TIMEOUT_SECONDS = 30
DOWNLOAD_PART_BYTES = 64 * 2**20
"""Part size for downloads. rclone's S3 server hashes the whole object for each part. For 500 MB this takes 52 s of CPU
time with boto3's default of 8 MB, and 1 s with this size."""
MAX_KEYS = 1000
"""Page size of a listing if the response does not state it."""
MAX_FOREIGN_RESPONSES = 5
NO_ETAG_PREFIX = "no-etag-"
_MD5 = re.compile(r"[0-9a-fA-F]{32}")


@dataclass(frozen=True)
class ListedObject:
    """An object in a listing. ``etag`` has no quotes. If the endpoint returns no etag, it is made of size and time."""

    key: str
    etag: str
    size_bytes: int

    @classmethod
    def from_response(cls, item: Mapping[str, Any]) -> "ListedObject":
        """Read one item of a listing. S3 servers may omit the etag or its quotes, or mark it as weak."""
        size_bytes = int(item.get("Size", 0))
        if etag := item.get("ETag"):
            return cls(item["Key"], _strip_etag(etag), size_bytes)
        return cls(item["Key"], f"{NO_ETAG_PREFIX}{size_bytes}-{_format_time(item.get('LastModified'))}", size_bytes)


@dataclass(frozen=True)
class ExpectedBody:
    """The version of an object that a listing showed. ``size_bytes`` is None if it is no longer known."""

    etag: str
    size_bytes: int | None

    @property
    def has_etag(self) -> bool:
        """Whether the listing contained an etag."""
        return not self.etag.startswith(NO_ETAG_PREFIX)

    @property
    def may_be_checksum(self) -> bool:
        """Whether the etag has the form of an MD5 checksum, so it may be that of the bytes."""
        return _MD5.fullmatch(self.etag) is not None

    def is_replaced(self, etag: str | None, changed_at: datetime | None) -> bool:
        """Return whether the headers of a response show another version. Missing headers are ignored."""
        if not self.has_etag:
            listed_at = self.etag.rpartition("-")[2]
            return bool(listed_at and changed_at and listed_at != _format_time(changed_at))
        return etag is not None and _strip_etag(etag).casefold() != self.etag.casefold()


def _strip_etag(etag: str) -> str:
    return etag.strip().removeprefix("W/").strip('"')


def _format_time(changed_at: datetime | None) -> str:
    # Listings contain fractions of a second, but headers do not.
    return str(int(changed_at.timestamp())) if changed_at else ""


class ObjectStore:
    """A thread-safe client of one S3 endpoint."""

    def __init__(
        self, endpoint_url: str | None, credentials: AwsCredentials | None = None, connections: int = 10
    ) -> None:
        """Set up the client. Without ``credentials``, boto3 searches its own chain.

        Raises:
            ConfigurationError: the endpoint or the profile is invalid.
        """
        config = Config(
            connect_timeout=CONNECTION_TIMEOUT_SECONDS,
            read_timeout=READ_TIMEOUT_SECONDS,
            max_pool_connections=connections,
            retries={"mode": "standard", "total_max_attempts": 4},
            s3={"addressing_style": "path"} if endpoint_url else None,
            # Endpoints other than AWS reject or ignore the newer default checksums.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        self._endpoint = endpoint_url or "AWS S3"
        try:
            session = (credentials or AwsCredentials()).open_session()
            self._client: S3Client = session.client("s3", endpoint_url=endpoint_url, config=config)
        except (botocore.exceptions.BotoCoreError, ValueError) as error:
            raise ConfigurationError(
                f"cannot set up the S3 client ({error}). Check CATALOG_S3_ENDPOINT_URL and AWS_PROFILE"
            ) from None
        self._are_etags_checksums = False
        self._foreign_responses = 0
        self._quick_reader = QuickReader(session, endpoint_url, CONNECTION_TIMEOUT_SECONDS, READ_TIMEOUT_SECONDS)

    def list_pages(self, location: S3Uri) -> Iterator[list[ListedObject]]:
        """Yield the objects under a prefix in pages of at most 1,000, in the order of the bucket.

        Raises:
            RetryableError: the endpoint is unavailable or throttles.
            ConfigurationError: the bucket does not exist, or the credentials may not list it.
        """
        parameters: dict[str, str] = {"Bucket": location.bucket, "Prefix": location.key}
        while True:
            with self._translate_errors(location):
                page = self._client.list_objects_v2(**parameters)  # type: ignore[arg-type]
            # The error page of a proxy can have status 200 and parse as an empty listing.
            if not {"IsTruncated", "Name"} & page.keys():
                raise RetryableError(f"{self._endpoint} returned something other than a listing of {location}")
            contents = page.get("Contents", [])
            items = [self._add_size(item, location) for item in contents]
            yield [ListedObject.from_response(item) for item in items if item]
            token = page.get("NextContinuationToken")
            # If IsTruncated is missing, a full page may not be the last.
            may_continue = bool(token) or len(contents) >= page.get("MaxKeys", MAX_KEYS)
            if not page.get("IsTruncated", may_continue):
                return
            if token in {None, parameters.get("ContinuationToken")}:
                raise RetryableError(f"{self._endpoint} ends the listing of {location} before its last page")
            parameters["ContinuationToken"] = token

    def _add_size(self, item: Mapping[str, Any], location: S3Uri) -> Mapping[str, Any] | None:
        """Add the size of an object if the listing omits it. Return None if the object is gone."""
        if "Size" in item:
            return item
        found = self._head(S3Uri(location.bucket, item["Key"]))
        return None if found is None else {**found, **item, "Size": found.get("ContentLength", 0)}

    def find(self, location: S3Uri) -> ListedObject | None:
        """Return an object as a listing shows it, or None if it does not exist. Errors are those of `list_pages`."""
        found = self._head(location)
        if found is None:
            # A missing bucket has the same status as a missing object.
            with self._translate_errors(location):
                self._client.list_objects_v2(Bucket=location.bucket, Prefix=location.key, MaxKeys=1)
            return None
        return ListedObject.from_response({**found, "Key": location.key, "Size": found.get("ContentLength", 0)})

    def _head(self, location: S3Uri) -> Mapping[str, Any] | None:
        with self._translate_errors(location):
            try:
                return self._client.head_object(Bucket=location.bucket, Key=location.key)
            except botocore.exceptions.ClientError as error:
                if get_code(error) in {"404", "NoSuchKey"}:
                    return None
                raise

    def read_clock(self, location: S3Uri) -> datetime | None:
        """Return the time of the endpoint, to the second, or None if it does not send it. Errors as in `list_pages`."""
        with self._translate_errors(location):
            page = self._client.list_objects_v2(Bucket=location.bucket, Prefix=location.key, MaxKeys=1)
        sent_at = page["ResponseMetadata"]["HTTPHeaders"].get("date")
        return parsedate_to_datetime(sent_at) if sent_at else None

    def read_unchanged(
        self, location: S3Uri, etag: str, max_bytes: int, size_bytes: int | None = None
    ) -> bytes | ReadReason:
        """Read an object if it still is the listed version. Otherwise return why it cannot be read.

        The bytes are compared with the listed ``size_bytes``, if given, and with the etag, if it is a checksum.

        Raises:
            RetryableError: the endpoint is unavailable, throttles, or returns other bytes than it lists.
            ConfigurationError: the credentials or the bucket are wrong.
        """
        expected = ExpectedBody(etag, size_bytes)
        content = self._quick_reader.read(location, etag, max_bytes) if expected.has_etag else None
        if content is not None and self._is_expected(content, expected):
            self._foreign_responses = 0
            return content
        result = self._read_with_retries(location, expected, max_bytes)
        if isinstance(result, bytes):
            self._foreign_responses = 0
            self._quick_reader.count_fallback()
        return result

    def _read_with_retries(self, location: S3Uri, expected: ExpectedBody, max_bytes: int) -> bytes | ReadReason:
        with self._translate_errors(location):
            # boto3 retries requests, but not bodies that break off.
            for _ in range(BODY_ATTEMPTS - 1):
                with suppress(*BROKEN_BODY_ERRORS, OtherBodyError):
                    return self._read_once(location, expected, max_bytes)
            return self._read_once(location, expected, max_bytes)

    def _read_once(self, location: S3Uri, expected: ExpectedBody, max_bytes: int) -> bytes | ReadReason:
        try:
            # If-Match is not used, because it never matches a weak etag and not every endpoint supports it.
            response = self._client.get_object(Bucket=location.bucket, Key=location.key)
            # Not `with response["Body"]`, which returns the raw stream with its raw exceptions.
            with closing(response["Body"]) as body:
                if expected.is_replaced(response.get("ETag"), response.get("LastModified")):
                    return ReadReason.REPLACED
                if response.get("ContentLength", 0) > max_bytes:
                    return ReadReason.TOO_LARGE
                content = body.read(max_bytes + 1)
                # The body checks its length only after it was read to the end.
                if body.read(1):
                    return ReadReason.TOO_LARGE
        except botocore.exceptions.ClientError as error:
            reason = self._find_reason(error, location)
            if reason is None:
                raise
            return reason
        if len(content) > max_bytes:
            return ReadReason.TOO_LARGE
        if not self._is_expected(content, expected, encryption=response.get("ServerSideEncryption")):
            raise OtherBodyError
        return content

    def _is_expected(self, content: bytes, expected: ExpectedBody, encryption: str | None = None) -> bool:
        """Return whether these are the listed bytes.

        An etag can look like an MD5 without being one. A mismatch counts only if another etag has matched before.
        """
        if expected.size_bytes not in {None, len(content)}:
            return False
        if not expected.may_be_checksum or (encryption and "kms" in encryption):
            return True
        is_same = hashlib.md5(content, usedforsecurity=False).hexdigest() == expected.etag.casefold()
        self._are_etags_checksums |= is_same
        return is_same or not self._are_etags_checksums

    def _find_reason(self, error: botocore.exceptions.ClientError, location: S3Uri) -> ReadReason | None:
        """Return why one object cannot be read, or None if the error affects the whole bucket.

        Raises:
            RetryableError: several responses in a row come from something other than S3.
        """
        reason = find_reason(error)
        if reason is not None and is_foreign(error):
            self._foreign_responses += 1
            if self._foreign_responses >= MAX_FOREIGN_RESPONSES:
                raise RetryableError(
                    f"{self._foreign_responses} responses in a row, the last for {location}, are error pages with "
                    f"status {get_status(error)} that do not come from S3. Check proxies between this machine and "
                    f"{self._endpoint}"
                )
        return reason

    def read(self, location: S3Uri) -> bytes:
        """Read an artifact.

        Raises:
            ConfigurationError: it does not exist.
            RetryableError: the endpoint is unavailable or throttles.
        """
        content = self._quick_reader.read(location)
        if content is not None:
            return content
        with self._translate_errors(location):
            content = self._client.get_object(Bucket=location.bucket, Key=location.key)["Body"].read()
        self._quick_reader.count_fallback()
        return content

    def read_if_present(self, location: S3Uri) -> bytes | None:
        """Read an object, or return None if it does not exist. Other errors are those of `read`."""
        with self._translate_errors(location):
            try:
                return self._client.get_object(Bucket=location.bucket, Key=location.key)["Body"].read()
            except self._client.exceptions.NoSuchKey:
                return None

    def download(self, location: S3Uri, path: Path) -> None:
        """Download an object to a file, in parts if it is large. Errors are those of `read`."""
        with self._translate_errors(location):
            parts = TransferConfig(multipart_threshold=DOWNLOAD_PART_BYTES, multipart_chunksize=DOWNLOAD_PART_BYTES)
            self._client.download_file(location.bucket, location.key, str(path), Config=parts)

    def write(self, location: S3Uri, content: bytes) -> None:
        """Write an object, replacing an existing one. Errors are those of `read`."""
        with self._translate_errors(location):
            self._client.put_object(Bucket=location.bucket, Key=location.key, Body=content)

    def delete(self, location: S3Uri) -> None:
        """Delete an object. It may be gone already. Errors are those of `read`."""
        with self._translate_errors(location):
            self._client.delete_object(Bucket=location.bucket, Key=location.key)

    def exists(self, location: S3Uri) -> bool:
        """Return whether the bucket lists an object. Errors are those of `list_pages`."""
        # A listing needs no right that a run does not need, and the key itself comes first in its order.
        return any(item.key == location.key for item in next(self.list_pages(location)))

    def upload(self, path: Path, location: S3Uri) -> None:
        """Upload a file, in parts if it is large. Errors are those of `read`."""
        # upload_file would hide the endpoint's response in an exception of its own.
        with self._translate_errors(location), path.open("rb") as file:
            self._client.upload_fileobj(file, location.bucket, location.key)

    def _translate_errors(self, location: S3Uri) -> AbstractContextManager[None]:
        return translate_s3_errors(self._endpoint, location)


def create_missing_buckets(
    endpoint_url: str | None, locations: Iterable[S3Uri], credentials: AwsCredentials | None = None
) -> list[str]:
    """Create the buckets of these locations that do not exist, and return their names. Create none on AWS."""
    if endpoint_url is None:
        return []
    session = (credentials or AwsCredentials()).open_session()
    client = session.client("s3", endpoint_url=endpoint_url, config=Config(s3={"addressing_style": "path"}))
    created = []
    for bucket in sorted({location.bucket for location in locations}):
        try:
            client.head_bucket(Bucket=bucket)
        except botocore.exceptions.ClientError as error:
            if get_code(error) != "404":
                raise
            client.create_bucket(Bucket=bucket)
            created.append(bucket)
    return created
