"""Print the report of a command as one line of JSON on standard output."""

import json
from dataclasses import asdict, is_dataclass
from typing import Any

import typer


def print_report(record: Any) -> None:
    """Print a record as the last line, which a scheduler reads."""
    typer.echo(json.dumps(asdict(record) if is_dataclass(record) and not isinstance(record, type) else record))
