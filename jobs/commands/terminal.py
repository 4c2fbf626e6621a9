"""Print reports and messages, without the control characters that names and keys from outside may contain."""

import json
import logging
import re
from dataclasses import asdict, is_dataclass
from typing import Any

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


def print_report(record: Any) -> None:
    """Print a record as the last line, which a scheduler reads."""
    typer.echo(json.dumps(asdict(record) if is_dataclass(record) and not isinstance(record, type) else record))
