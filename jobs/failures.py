"""Why one photo could not be read or tagged: the values of ``catalog.item_failures``."""

import enum


class ObjectFault(enum.StrEnum):
    """Why one object could not be read although the bucket answers; the words of ``item_failures.reason``."""

    MISSING = "object_missing"
    REPLACED = "object_replaced"
    ACCESS_DENIED = "access_denied"
    REFUSED = "object_refused"
    TOO_LARGE = "object_too_large"


class Stage(enum.StrEnum):
    """Where in the flow an image was given up."""

    READ = "read"
    DECODE = "decode"


class Reason(enum.StrEnum):
    """The decoder's reasons; reading adds those of `ObjectFault`."""

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


RETRYABLE_REASONS = (
    ObjectFault.ACCESS_DENIED,
    ObjectFault.MISSING,
    ObjectFault.REPLACED,
    ObjectFault.REFUSED,
    Reason.DECODER_LOST,
)
"""What time cures although the listing shows the same bytes; all others wait until the bytes change."""
