"""What a command leaves on standard output: its report, as JSON in one line."""

import json
from dataclasses import asdict, is_dataclass
from typing import Any

import typer


def print_report(record: Any) -> None:
    """Print a frozen record, or whatever JSON takes, as the last line that a scheduler reads."""
    typer.echo(json.dumps(asdict(record) if is_dataclass(record) and not isinstance(record, type) else record))
