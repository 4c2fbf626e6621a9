"""Faults of single objects, apart from the client: decoding processes need the words, but not boto3."""

import enum


class ObjectFault(enum.StrEnum):
    """Why one object could not be read although the bucket answers; the words of ``item_failures.reason``."""

    MISSING = "object_missing"
    REPLACED = "object_replaced"
    ACCESS_DENIED = "access_denied"
    REFUSED = "object_refused"
    TOO_LARGE = "object_too_large"
