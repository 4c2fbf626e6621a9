"""``python -m jobs COMMAND``: one command for each task of the DAGs, and commands for people.

A report is printed as JSON in the last line of standard output. Progress and errors go to standard error.
"""

import errno
import logging
import os
import sys
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from jobs.commands.terminal import HarmlessFormatter, show
from jobs.errors import JobError, PermanentError, RetryableError
from jobs.settings import find_ignored_variables
from jobs.stopping import end_at_second_signal

COMMANDS = {
    "migrate": ("setup", "Create or upgrade the schema in CATALOG_DATABASE_URL."),
    "create-buckets": (
        "setup",
        "Create the buckets of the source and the artifacts if they are missing.",
    ),
    "ingest": ("ingest", "Tag all new images in the bucket: the whole nightly flow without Airflow."),
    "discover": ("ingest", "Stages 1 and 2: compare the bucket with the catalog and write the manifest of a run."),
    "tag-shard": ("ingest", "Stages 3 to 6: read, decode, predict and write one shard. A repeated call resumes it."),
    "publish": ("ingest", "Stage 7: update the product tags and the vector index, and make the space live."),
    "map": ("map", "Draw the map of the catalog again if its images have changed."),
    "report": ("ingest", "Stage 8: summarize a run, store its report and check it against the limits."),
    "import-labels": ("retrain", "Import labels to train on. Invalid rows are skipped and listed in a report."),
    "snapshot": ("retrain", "Freeze all labels into a dataset: drop duplicates and split it by group."),
    "train": ("retrain", "Train a candidate. A repeated call resumes from the last checkpoint."),
    "optimize": ("retrain", "Search for the fastest build of a candidate that passes the fidelity gate."),
    "build": (
        "retrain",
        "Make the builds of a version for this machine if it has none. Workers do it when they need one.",
    ),
    "evaluate": ("retrain", "Score candidate and champion on the same test images, and benchmark the artifact."),
    "gate": ("retrain", "Decide whether a candidate may be promoted, and write its evaluation page."),
    "promote": (
        "retrain",
        "Make a candidate that passed its gates the champion, if the champion is unchanged.",
    ),
    "decide": (
        "retrain",
        "Carry out, once, a promotion or rollback that was confirmed on the page Models.",
    ),
    "adopt": (
        "retrain",
        "Make a base encoder the first champion, to search before there are labels.",
    ),
    "retrain": ("retrain", "Train, evaluate, promote and retag: the whole weekly flow without Airflow."),
    "plan-retag": ("retag", "Find the images that the champions have not tagged, and write the manifest of a run."),
    "complete-retag": (
        "retag",
        "Tag images that arrived during the retag, and switch to the champions in one transaction.",
    ),
    "retag": ("retag", "Retag the whole catalog with the champions: the flow of catalog_retag without Airflow."),
    "rollback": ("retag", "Switch back to an earlier champion at once."),
    "models": ("models", "List and inspect model versions."),
    "spaces": ("models", "List and drop embedding spaces, the vectors of each encoder."),
    "embed-text": ("search", "Store the vector of a text, for catalog.search_products in SQL."),
    "search": ("search", "Search products by text."),
    "similar": ("search", "Find products that look like another product."),
    "serve": ("serve", "Serve text and image queries over HTTP with the live models."),
    "stack": ("local", "Run Postgres, an S3 endpoint, the query service and Airflow on this machine."),
    "settings": ("settings", "Print every setting with its default, as a .env file."),
}
"""The module and help text of each command, in the order that ``--help`` shows."""


def load_command(name: str) -> Any:
    """Import the module of a command."""
    module, _ = COMMANDS[name]
    return typer.main.get_group(import_module(f"jobs.commands.{module}").app).commands[name]


class LazyGroup(TyperGroup):
    """Import the module of a command only when it runs, so ``--help`` and other commands start without it."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.commands = {name: TyperCommand(name, help=text) for name, (_, text) in COMMANDS.items()}

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        return name, load_command(name) if name in COMMANDS else command, rest


app = typer.Typer(cls=LazyGroup, no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)


@app.callback()
def _describe() -> None:
    """Jobs of the catalog tagger."""


_WRONG_PATH = "there is a file where a folder should be: check the path, and CATALOG_MODEL_CACHE"
_NO_RIGHT = "give the user of the job the right to write there, or set CATALOG_MODEL_CACHE to another folder"
_NO_SPACE = "free space on its disk, or set CATALOG_MODEL_CACHE to another folder"
DISK_ERRORS = {
    errno.ENOSPC: _NO_SPACE,
    errno.EDQUOT: _NO_SPACE,
    errno.EFBIG: "raise the limit on the size of files (ulimit -f)",
    errno.EROFS: _NO_RIGHT,
    errno.EACCES: _NO_RIGHT,
    errno.EPERM: _NO_RIGHT,
    errno.ENOTDIR: _WRONG_PATH,
    errno.EISDIR: _WRONG_PATH,
    errno.EEXIST: _WRONG_PATH,
}
"""Errors caused by the machine rather than by our code, with the remedy."""


def main() -> None:
    """Run a command of ``python -m jobs``."""
    run_app(app)


def run_app(app: typer.Typer) -> None:
    """Run an application. Turn a known error into one line and its exit code."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(HarmlessFormatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    for noisy in ("botocore", "boto3", "urllib3", "httpx", "matplotlib", "PIL"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # Transformers reads these on import, including in the processes that a job starts.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    # torch reads this on import. By default, its threads spin while they wait for each other, and training needs ten
    # times the CPU time as soon as another process takes a core.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    if ignored := find_ignored_variables():
        logging.warning("%s in .env has no effect: export it instead", ", ".join(ignored))
    try:
        with end_at_second_signal():
            app()
    except JobError as error:
        show(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        words = DISK_ERRORS[error.errno]
        show(f"error: {error.filename or 'a file'} cannot be written or read: {error.strerror}; {words}", err=True)
        sys.exit(PermanentError.exit_code)
    except MemoryError:
        show("error: this machine has too little memory for the job: add memory, or stop other programs", err=True)
        sys.exit(RetryableError.exit_code)
