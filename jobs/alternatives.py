"""Answer a name that does not exist with those that do."""

from collections.abc import Iterable
from difflib import get_close_matches

MAX_CLOSE = 3
MAX_NAMED = 5
MIN_COMPARED_LENGTH = 3
"""Shorter names, such as numbers, are similar by chance."""


def name_alternatives(wanted: object, existing: Iterable[object], none: str = "There are none yet") -> str:
    """Return the end of an error message: the most similar names, or else the first ones. ``none`` is for no name."""
    word, names = str(wanted), [str(name) for name in existing]
    if not names:
        return none
    close = get_close_matches(word, names, MAX_CLOSE) if len(word) >= MIN_COMPARED_LENGTH else []
    if close:
        return f"Did you mean {' or '.join(close)}?"
    if len(names) == 1:
        return f"The only one is {names[0]}"
    more = " and others" if len(names) > MAX_NAMED else ""
    return f"The existing ones are {', '.join(names[:MAX_NAMED])}{more}"
