"""Where a page of a list ends, as an opaque text that a browser carries."""

import base64
import binascii
import json


class BadCursorError(ValueError):
    """A cursor that no page of ours was made with."""


def write_cursor(key: str | float | None, image_id: int) -> str:
    """The place behind an image, in a list that is ordered by a key and then by image."""
    return base64.urlsafe_b64encode(json.dumps([key, image_id]).encode()).decode().rstrip("=")


def read_cursor(cursor: str) -> tuple[str | float | None, int]:
    """What `write_cursor` was given.

    Raises:
        BadCursorError: it is none of ours.
    """
    try:
        values = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (binascii.Error, ValueError):
        raise BadCursorError("this page's address is damaged: start again from the first page") from None
    match values:
        case [str() | float() | None as key, int() as image_id] if 0 <= image_id < 2**63:
            return key, image_id
    raise BadCursorError("this page's address is damaged: start again from the first page")
