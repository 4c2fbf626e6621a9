"""Write and read benchmark results, one JSON file each. `make report` generates docs/benchmarks.md from them."""

import json
import os
import shlex
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.machine import describe_machine, read_versions
from jobs.settings import PROJECT_ROOT

RESULTS = Path(os.environ.get("BENCHMARK_RESULTS", PROJECT_ROOT / "benchmarks" / "results"))
"""The folder of results. Set the variable to try a benchmark without replacing the committed figures."""

Row = Mapping[str, str | float | None]
"""A row of a table, by column name."""


@dataclass(frozen=True)
class Result:
    """What a benchmark measured, on which machine and with which command. The page omits the rows in ``details``."""

    name: str
    title: str
    measured: str
    targets: str
    command: str
    machine: str
    date: str | None
    versions: Mapping[str, str]
    rows: Sequence[Row]
    details: Sequence[Row] = ()


def publish(
    title: str,
    measured: str,
    rows: Sequence[Row],
    *,
    targets: str = "",
    packages: Sequence[str] = (),
    details: Sequence[Row] = (),
) -> None:
    """Print the tables of the running benchmark, and write its result."""
    command = describe_command()
    result = Result(
        name=command.split()[2].rpartition(".")[2],
        title=title,
        measured=measured,
        targets=targets,
        command=command,
        machine=describe_machine(),
        date=f"{datetime.now(UTC):%Y-%m-%d}",
        versions=read_versions(packages),
        rows=rows,
        details=details,
    )
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{result.name}.json"
    path.write_text(json.dumps(asdict(result), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print("\n".join(["", *format_table(details), "", *format_table(rows), "", f"Written to {path}. Now: make report"]))


def describe_command() -> str:
    """Return the command that started this process."""
    spec = sys.modules["__main__"].__spec__
    assert spec, "benchmarks run as python -m benchmarks.NAME"
    return shlex.join(["python", "-m", spec.name.removesuffix(".__main__"), *sys.argv[1:]])


def read_result(name: str) -> Result:
    """Read a committed result."""
    record: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return Result(**record)


def format_table(rows: Sequence[Row]) -> list[str]:
    """Format rows as a Markdown table with a column for each key that occurs."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    lines = [columns, ["---"] * len(columns), *([_format_cell(row.get(column)) for column in columns] for row in rows)]
    return [f"| {' | '.join(cells)} |" for cells in lines] if rows else []


def format_range(values: Sequence[float], digits: int) -> str:
    """Format the median. If there are several values, add their range."""
    median = f"{statistics.median(values):,.{digits}f}"
    return median if len(values) == 1 else f"{median} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"


def format_share(share: float) -> str:
    """Format a share as a percentage."""
    return f"{100 * share:.1f} %"


def _format_cell(value: str | float | None) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else f"{value:,}"
