"""What people read on a terminal, without the characters that would act on it: names and keys come from strangers."""

import logging
import re

import typer

_ACTING = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Control characters but for line breaks and tabs, and those that turn the direction of a text."""


def show(message: str, *, err: bool = False) -> None:
    """Print a text for people."""
    typer.echo(make_harmless(message), err=err)


def make_harmless(text: str) -> str:
    """Put U+FFFD for each character that a terminal would obey."""
    return _ACTING.sub("\N{REPLACEMENT CHARACTER}", text)


class HarmlessFormatter(logging.Formatter):
    """Formats the lines of a log."""

    def format(self, record: logging.LogRecord) -> str:
        return make_harmless(super().format(record))
