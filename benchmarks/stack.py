"""Start a local stack with an empty bucket and catalog."""

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

from fixtures.stack_access import read_environment
from jobs.database.migrations import migrate
from jobs.local.airflow_services import AirflowOptions
from jobs.local.ports import WantedPorts
from jobs.local.stack import StackStatus, start_stack, stop_stack


@dataclass(frozen=True)
class Stack:
    """A running stack and the environment of its jobs."""

    status: StackStatus
    environment: dict[str, str]

    @property
    def database_url(self) -> str:
        """Return the URL of the catalog database."""
        return self.environment["CATALOG_DATABASE_URL"]

    @property
    def s3_url(self) -> str:
        """Return the URL of the S3 endpoint."""
        return self.environment["CATALOG_S3_ENDPOINT_URL"]


@contextmanager
def open_stack(settings: Mapping[str, str] | None = None, airflow: AirflowOptions | None = None) -> Iterator[Stack]:
    """Start a stack with a migrated database. Stop and delete it at the end of the block.

    ``settings`` apply to jobs, and to Airflow if it is started.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as parent:
        folder = Path(parent) / "stack"
        chosen = {"CATALOG_MODEL_CACHE": f"{parent}/models", **(settings or {})}
        try:
            with patch.dict(os.environ, chosen):
                status = start_stack(folder, WantedPorts(), airflow)
            stack = Stack(status, read_environment(folder) | chosen)
            migrate(stack.database_url)
            yield stack
        finally:
            stop_stack(folder)
