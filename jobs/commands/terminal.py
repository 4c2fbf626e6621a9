"""Print text on a terminal without control characters, since names and keys come from outside."""

import logging
import re

import typer

_ACTING = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Control characters except line breaks and tabs, and characters that change the direction of text."""


def show(message: str, *, err: bool = False) -> None:
    """Print text for a person."""
    typer.echo(make_harmless(message), err=err)


def make_harmless(text: str) -> str:
    """Replace each character that a terminal would obey by U+FFFD."""
    return _ACTING.sub("\N{REPLACEMENT CHARACTER}", text)


class HarmlessFormatter(logging.Formatter):
    """Format log lines without control characters."""

    def format(self, record: logging.LogRecord) -> str:
        return make_harmless(super().format(record))
