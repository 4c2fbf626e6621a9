"""List the stages and reasons of failed images: the values in ``catalog.item_failures``."""

import enum


class ReadReason(enum.StrEnum):
    """Reasons why an object cannot be read although the bucket is reachable."""

    MISSING = "object_missing"
    REPLACED = "object_replaced"
    ACCESS_DENIED = "access_denied"
    REFUSED = "object_refused"
    TOO_LARGE = "object_too_large"


class DecodeReason(enum.StrEnum):
    """Reasons why bytes cannot be decoded into an image."""

    EMPTY = "empty_file"
    UNSUPPORTED = "unsupported_format"
    TRUNCATED = "truncated"
    CORRUPT = "corrupt"
    TOO_MANY_PIXELS = "too_many_pixels"
    TOO_SMALL = "too_small"
    TOO_MANY_SCANS = "too_many_scans"
    DECODER_CRASHED = "decoder_crashed"
    DECODER_TOO_SLOW = "decoder_too_slow"
    DECODER_LOST = "decoder_lost"


class Stage(enum.StrEnum):
    """The stage in which an image failed."""

    READ = "read"
    DECODE = "decode"


RETRYABLE_REASONS = (
    ReadReason.ACCESS_DENIED,
    ReadReason.MISSING,
    ReadReason.REPLACED,
    ReadReason.REFUSED,
    DecodeReason.DECODER_LOST,
)
"""Reasons that may be temporary. After a failure for any other reason, an image is due only when its bytes change."""
