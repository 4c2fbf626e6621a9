"""A local stack without Airflow whose bucket and catalog are empty."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fixtures.stack_access import read_environment
from jobs.database.migrations import migrate
from jobs.local.ports import WantedPorts
from jobs.local.stack import start_stack, stop_stack


@contextmanager
def open_empty_stack() -> Iterator[dict[str, str]]:
    """The variables that its jobs would be given; the schema is there, and all ends and vanishes with the block."""
    with tempfile.TemporaryDirectory(prefix="bench-") as parent:
        folder = Path(parent) / "stack"
        try:
            start_stack(folder, WantedPorts(), None)
            environment = read_environment(folder)
            migrate(environment["CATALOG_DATABASE_URL"])
            yield environment
        finally:
            stop_stack(folder)
