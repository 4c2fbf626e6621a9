"""Why one image could not be tagged: the words of ``catalog.item_failures.reason``."""

import enum

from jobs.storage.faults import ObjectFault


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
