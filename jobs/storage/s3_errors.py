"""Distinguish S3 errors that concern one object from those that end the job."""

from collections.abc import Iterator
from contextlib import contextmanager

import boto3.exceptions
import botocore.exceptions
import botocore.parsers

from jobs.errors import ConfigurationError, RetryableError
from jobs.failures import ReadReason
from jobs.storage.locations import S3Uri

BODY_ATTEMPTS = 3
BROKEN_BODY_ERRORS = (botocore.exceptions.IncompleteReadError, botocore.exceptions.ResponseStreamingError)
TRANSPORT_ERRORS = (
    botocore.exceptions.ConnectionError,
    botocore.exceptions.HTTPClientError,
    botocore.exceptions.IncompleteReadError,
    boto3.exceptions.RetriesExceededError,
)
CREDENTIAL_ERRORS = (
    botocore.exceptions.NoCredentialsError,
    botocore.exceptions.PartialCredentialsError,
    botocore.exceptions.CredentialRetrievalError,
)

REGION_CODES = {
    "301",
    "307",
    "PermanentRedirect",
    "TemporaryRedirect",
    "Redirect",
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
}
"""Codes that mean that the bucket is in another region."""
CREDENTIAL_CODES = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "NoSuchBucket"}
CLOCK_CODES = {"RequestTimeTooSkewed", "RequestExpired"}
TEMPORARY_STATUSES = {408, 429}
STATUSES_WITHOUT_CODE = {"404", "412"}
"""Statuses that are unambiguous even without an S3 error code."""
REASON_OF_CODE = {
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


class OtherBodyError(Exception):
    """The body of a response is not the listed version of the object."""


@contextmanager
def translate_s3_errors(endpoint: str, location: S3Uri) -> Iterator[None]:
    """Turn boto3 exceptions into errors of the job.

    Raises:
        RetryableError: the endpoint is unavailable, throttles, or returns other bytes than it lists.
        ConfigurationError: the credentials, the region or the bucket are wrong.
    """
    try:
        yield
    except CREDENTIAL_ERRORS as error:
        raise ConfigurationError(
            f"no S3 credentials ({error}). Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile"
        ) from None
    except TRANSPORT_ERRORS as error:
        raise RetryableError(f"cannot reach the bucket at {endpoint}: {error}. Is it running?") from error
    except botocore.exceptions.ClientError as error:
        code = get_code(error)
        message = f"{endpoint} returned {code} for {location}"
        if code in REGION_CODES:
            raise ConfigurationError(f"{message}: {_name_region(error)}") from error
        if code in CREDENTIAL_CODES or code in REASON_OF_CODE:
            raise ConfigurationError(f"{message}. Check the name and the rights of the credentials") from error
        raise RetryableError(f"{message}: {error.response.get('Error', {}).get('Message', '')}") from error
    except OtherBodyError:
        raise RetryableError(
            f"{endpoint} returned {BODY_ATTEMPTS} times bytes of {location} that differ from its listing. Check "
            "proxies between this machine and the bucket"
        ) from None
    except botocore.parsers.ResponseParserError:
        raise RetryableError(f"{endpoint} returned a response for {location} that is not S3") from None
    except botocore.exceptions.BotoCoreError as error:
        raise ConfigurationError(f"cannot request {location}: {' '.join(str(error).split())}") from None


def find_reason(error: botocore.exceptions.ClientError) -> ReadReason | None:
    """Return why one object cannot be read, or None if the error affects the whole bucket."""
    code = get_code(error)
    if code in CREDENTIAL_CODES | REGION_CODES | CLOCK_CODES:
        return None
    status = get_status(error)
    is_client_error = 400 <= status < 500 and status not in TEMPORARY_STATUSES
    return REASON_OF_CODE.get(code, ReadReason.REFUSED if is_client_error else None)


def is_foreign(error: botocore.exceptions.ClientError) -> bool:
    """Return whether a response lacks an S3 error code, which means it comes from something else, such as a proxy."""
    code = get_code(error)
    return not code or (code.isdecimal() and code not in STATUSES_WITHOUT_CODE)


def get_status(error: botocore.exceptions.ClientError) -> int:
    """Return the HTTP status of an error response."""
    status: int = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return status


def get_code(error: botocore.exceptions.ClientError) -> str:
    """Return the S3 code of an error response, or an empty string."""
    return error.response.get("Error", {}).get("Code", "")


def _name_region(error: botocore.exceptions.ClientError) -> str:
    headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    region = error.response.get("Error", {}).get("Region") or headers.get("x-amz-bucket-region")
    return f"the bucket is in {region}. Set AWS_REGION to it" if region else "set AWS_REGION to that of the bucket"
