"""Object storage: list, read, write, each fault sorted into data or infrastructure."""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3.exceptions
import botocore.exceptions
import botocore.parsers
from boto3.s3.transfer import TransferConfig
from botocore.config import Config

from jobs.errors import ConfigurationError, RetryableError
from jobs.failures import ReadReason
from jobs.storage.credentials import AwsCredentials
from jobs.storage.expected_body import ExpectedBody, read_version
from jobs.storage.quick_reader import QuickReader
from jobs.storage.uri import S3Uri

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

CONNECTION_TIMEOUT_SECONDS = 5
READ_TIMEOUT_SECONDS = 30
PART_BYTES = 64 * 2**20
"""Of a large object that is downloaded. rclone hashes the whole object for each part: 500 MB in boto3's parts of 8 MB
take it 52 s of a core, in these 1 s."""
BODY_ATTEMPTS = 3
TRANSPORT_FAULTS = (
    botocore.exceptions.ConnectionError,
    botocore.exceptions.HTTPClientError,
    botocore.exceptions.IncompleteReadError,
    boto3.exceptions.RetriesExceededError,
)
CREDENTIAL_FAULTS = (
    botocore.exceptions.NoCredentialsError,
    botocore.exceptions.PartialCredentialsError,
    botocore.exceptions.CredentialRetrievalError,
)
BROKEN_BODY_FAULTS = (botocore.exceptions.IncompleteReadError, botocore.exceptions.ResponseStreamingError)
MAX_FOREIGN_RESPONSES = 5
REGION_CODES = {
    "301",
    "307",
    "PermanentRedirect",
    "TemporaryRedirect",
    "Redirect",
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
}
"""The bucket is in another region than the one that was asked."""
CLOCK_CODES = {"RequestTimeTooSkewed", "RequestExpired"}
FAULTS_WITHOUT_CODE = {"404", "412"}
"""Statuses by which an endpoint says enough without a code of S3."""
CREDENTIAL_CODES = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "NoSuchBucket"}

PASSING_STATUSES = {408, 429}
FAULT_OF_CODE = {
    "NoSuchKey": ReadReason.MISSING,
    "404": ReadReason.MISSING,
    "NoSuchVersion": ReadReason.MISSING,
    "PreconditionFailed": ReadReason.REPLACED,
    "412": ReadReason.REPLACED,
    "AccessDenied": ReadReason.ACCESS_DENIED,
    "403": ReadReason.ACCESS_DENIED,
    "AllAccessDisabled": ReadReason.ACCESS_DENIED,
    "InvalidObjectState": ReadReason.ACCESS_DENIED,
}


class _OtherBodyError(Exception):
    """The body of an answer is not the object that was listed."""


MAX_KEYS = 1000
"""Of a page of a listing, unless it says otherwise."""


@dataclass(frozen=True)
class ListedObject:
    """One line of a listing; ``etag`` bears no quotes. Where the endpoint gives none, size and time stand for it."""

    key: str
    etag: str
    size_bytes: int


class ObjectStore:
    """A thread-safe client of one S3 endpoint."""

    def __init__(
        self, endpoint_url: str | None, credentials: AwsCredentials | None = None, connections: int = 10
    ) -> None:
        """Set up the client; without ``credentials``, boto3 finds them by its own chain.

        Raises:
            ConfigurationError: the endpoint or the profile is wrong.
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
                f"the S3 client cannot be set up ({error}); check CATALOG_S3_ENDPOINT_URL and AWS_PROFILE"
            ) from None
        self._are_etags_checksums = False
        self._foreign_answers = 0
        self._quick_reader = QuickReader(session, endpoint_url, CONNECTION_TIMEOUT_SECONDS, READ_TIMEOUT_SECONDS)

    def list_pages(self, location: S3Uri) -> Iterator[list[ListedObject]]:
        """Yield the objects under a prefix, a page of at most 1,000 at a time, in the bucket's order.

        Raises:
            RetryableError: the endpoint is away or throttles.
            ConfigurationError: no such bucket, or no right to list it.
        """
        where: dict[str, str] = {"Bucket": location.bucket, "Prefix": location.key}
        while True:
            with self._infrastructure(location):
                page = self._client.list_objects_v2(**where)  # type: ignore[arg-type]
            # An error page of a proxy may come with status 200 and parse as a listing of nothing.
            if not {"IsTruncated", "Name"} & page.keys():
                raise RetryableError(f"{self._endpoint} answered with something else than a listing of {location}")
            contents = page.get("Contents", [])
            lines = [self._complete(item, location) for item in contents]
            yield [ListedObject(item["Key"], *read_version(item)) for item in lines if item]
            token = page.get("NextContinuationToken")
            # Where it is left out, a full page may not be the last.
            may_go_on = bool(token) or len(contents) >= page.get("MaxKeys", MAX_KEYS)
            if not page.get("IsTruncated", may_go_on):
                return
            if token in {None, where.get("ContinuationToken")}:
                raise RetryableError(f"{self._endpoint} breaks the listing of {location} off in the middle")
            where["ContinuationToken"] = token

    def _complete(self, item: Mapping[str, Any], location: S3Uri) -> Mapping[str, Any] | None:
        """Ask for the size of an object where the listing leaves it out; None if the object is gone by now."""
        if "Size" in item:
            return item
        with self._infrastructure(location):
            try:
                found = self._client.head_object(Bucket=location.bucket, Key=item["Key"])
            except botocore.exceptions.ClientError as error:
                if _code(error) in {"404", "NoSuchKey"}:
                    return None
                raise
        return {**found, **item, "Size": found.get("ContentLength", 0)}

    def read_unchanged(
        self, location: S3Uri, etag: str, max_bytes: int, size_bytes: int | None = None
    ) -> bytes | ReadReason:
        """Read an object if it still is what the listing showed, else say what became of it.

        Without ``size_bytes``, the listed one, the bytes are compared with the etag alone, where that is a checksum.

        Raises:
            RetryableError: the endpoint is away, throttles, or hands out other bytes than it lists.
            ConfigurationError: the credentials or the bucket are wrong.
        """
        expected = ExpectedBody(etag, size_bytes)
        content = None if expected.is_without_etag else self._quick_reader.read(location, etag, max_bytes)
        if content is not None and self._is_whole(content, expected):
            self._foreign_answers = 0
            return content
        answer = self._read_sorting_faults(location, expected, max_bytes)
        if isinstance(answer, bytes):
            self._foreign_answers = 0
            self._quick_reader.count_detour()
        return answer

    def _read_sorting_faults(self, location: S3Uri, expected: ExpectedBody, max_bytes: int) -> bytes | ReadReason:
        with self._infrastructure(location):
            # boto3 sends a request again, but does not read a body again that broke off.
            for _ in range(BODY_ATTEMPTS - 1):
                with suppress(*BROKEN_BODY_FAULTS, _OtherBodyError):
                    return self._read_once(location, expected, max_bytes)
            return self._read_once(location, expected, max_bytes)

    def _read_once(self, location: S3Uri, expected: ExpectedBody, max_bytes: int) -> bytes | ReadReason:
        try:
            # Without a condition: for a weak etag it never holds, and not every endpoint honours it.
            answer = self._client.get_object(Bucket=location.bucket, Key=location.key)
            # Not the body's own context manager, which hands out the bare stream with its bare exceptions.
            with closing(answer["Body"]) as body:
                if expected.is_replaced(answer.get("ETag"), answer.get("LastModified")):
                    return ReadReason.REPLACED
                if answer.get("ContentLength", 0) > max_bytes:
                    return ReadReason.TOO_LARGE
                content = body.read(max_bytes + 1)
                # Only at its end does the body find out whether it is as long as was promised.
                if body.read(1):
                    return ReadReason.TOO_LARGE
        except botocore.exceptions.ClientError as error:
            fault = self._sort_fault(error, location)
            if fault is None:
                raise
            return fault
        if len(content) > max_bytes:
            return ReadReason.TOO_LARGE
        if not self._is_whole(content, expected, encryption=answer.get("ServerSideEncryption")):
            raise _OtherBodyError
        return content

    def _is_whole(self, content: bytes, expected: ExpectedBody, encryption: str | None = None) -> bool:
        """Whether these are the listed bytes.

        An etag looks like an MD5 also where it is none, so that one has to have matched before a mismatch counts.
        """
        if expected.size_bytes not in {None, len(content)}:
            return False
        if not expected.may_be_checksum or (encryption and "kms" in encryption):
            return True
        is_same = hashlib.md5(content, usedforsecurity=False).hexdigest() == expected.etag.casefold()
        self._are_etags_checksums |= is_same
        return is_same or not self._are_etags_checksums

    def _sort_fault(self, error: botocore.exceptions.ClientError, location: S3Uri) -> ReadReason | None:
        """What an answer says of the one object, or None if it speaks of the whole bucket.

        Raises:
            RetryableError: one answer after the other does not come from S3, but from something before it.
        """
        fault = _object_fault(error)
        if fault is not None and _is_foreign(error):
            self._foreign_answers += 1
            if self._foreign_answers >= MAX_FOREIGN_RESPONSES:
                raise RetryableError(
                    f"{self._foreign_answers} answers in a row, the last for {location}, are error pages with status "
                    f"{_status(error)} and not of S3: check proxies between this machine and {self._endpoint}"
                )
        return fault

    def read(self, location: S3Uri) -> bytes:
        """Read one of our own artifacts.

        Raises:
            ConfigurationError: it is not there.
            RetryableError: the endpoint is away or throttles.
        """
        content = self._quick_reader.read(location)
        if content is not None:
            return content
        with self._infrastructure(location):
            answer = self._client.get_object(Bucket=location.bucket, Key=location.key)["Body"].read()
        self._quick_reader.count_detour()
        return answer

    def read_if_present(self, location: S3Uri) -> bytes | None:
        """Read an object, or None if there is none; other faults as in `read`."""
        with self._infrastructure(location):
            try:
                return self._client.get_object(Bucket=location.bucket, Key=location.key)["Body"].read()
            except self._client.exceptions.NoSuchKey:
                return None

    def download(self, location: S3Uri, path: Path) -> None:
        """Copy an object to a file, in parts when it is large; faults as in `read`."""
        with self._infrastructure(location):
            parts = TransferConfig(multipart_threshold=PART_BYTES, multipart_chunksize=PART_BYTES)
            self._client.download_file(location.bucket, location.key, str(path), Config=parts)

    def write(self, location: S3Uri, content: bytes) -> None:
        """Store an object, replacing what was there; faults as in `read`."""
        with self._infrastructure(location):
            self._client.put_object(Bucket=location.bucket, Key=location.key, Body=content)

    def upload(self, path: Path, location: S3Uri) -> None:
        """Copy a file to the bucket, in parts when it is large; faults as in `read`."""
        # Not upload_file, which hides the endpoint's answer behind an exception of its own.
        with self._infrastructure(location), path.open("rb") as file:
            self._client.upload_fileobj(file, location.bucket, location.key)

    @contextmanager
    def _infrastructure(self, location: S3Uri) -> Iterator[None]:
        """Turn boto3's exceptions into the job's own, with one line that says what to do."""
        try:
            yield
        except CREDENTIAL_FAULTS as error:
            raise ConfigurationError(
                f"no S3 credentials ({error}): set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile"
            ) from None
        except TRANSPORT_FAULTS as error:
            raise RetryableError(f"cannot reach the bucket at {self._endpoint}: {error}; is it up?") from error
        except botocore.exceptions.ClientError as error:
            code = _code(error)
            message = f"{self._endpoint} answered {code} for {location}"
            if code in REGION_CODES:
                raise ConfigurationError(f"{message}: {_name_region(error)}") from error
            if code in CREDENTIAL_CODES or code in FAULT_OF_CODE:
                raise ConfigurationError(f"{message}: check the name and the rights of the credentials") from error
            raise RetryableError(f"{message}: {error.response.get('Error', {}).get('Message', '')}") from error
        except _OtherBodyError:
            raise RetryableError(
                f"{self._endpoint} returns other bytes of {location} than it lists, {BODY_ATTEMPTS} times: check "
                "proxies between this machine and the bucket"
            ) from None
        except botocore.parsers.ResponseParserError:
            raise RetryableError(f"{self._endpoint} answered for {location} in words that are not of S3") from None
        except botocore.exceptions.BotoCoreError as error:
            raise ConfigurationError(f"{location} cannot be asked for: {' '.join(str(error).split())}") from None


def _object_fault(error: botocore.exceptions.ClientError) -> ReadReason | None:
    """What an answer says of the one object, or None if it speaks of the whole bucket."""
    code = _code(error)
    if code in CREDENTIAL_CODES | REGION_CODES | CLOCK_CODES:
        return None
    status = _status(error)
    is_about_the_request = 400 <= status < 500 and status not in PASSING_STATUSES
    return FAULT_OF_CODE.get(code, ReadReason.REFUSED if is_about_the_request else None)


def _is_foreign(error: botocore.exceptions.ClientError) -> bool:
    """Whether an answer bears no code of S3, so that it comes from something else."""
    code = _code(error)
    return not code or (code.isdecimal() and code not in FAULTS_WITHOUT_CODE)


def _status(error: botocore.exceptions.ClientError) -> int:
    status: int = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return status


def _code(error: botocore.exceptions.ClientError) -> str:
    return error.response.get("Error", {}).get("Code", "")


def _name_region(error: botocore.exceptions.ClientError) -> str:
    headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    region = error.response.get("Error", {}).get("Region") or headers.get("x-amz-bucket-region")
    return f"the bucket is in {region}: set AWS_REGION to it" if region else "set AWS_REGION to that of the bucket"
