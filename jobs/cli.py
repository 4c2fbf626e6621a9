"""``catalog COMMAND`` or ``python -m jobs COMMAND``: commands for people, and one for each task of the DAGs.

A report goes to standard output: a table on a terminal, otherwise JSON in the last line. Progress and errors go to
standard error.
"""

import errno
import logging
import os
import platform
import sys
from contextvars import copy_context
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from jobs.commands.options import give_examples
from jobs.commands.terminal import HarmlessFormatter, choose_json, show
from jobs.errors import JobError, PermanentError, RetryableError
from jobs.settings import find_ignored_variables
from jobs.stopping import end_at_second_signal

PROGRAM = "catalog"
GROUPS: dict[str, dict[str, tuple[str, str]]] = {
    "Everyday": {
        "status": ("status", "Show the state of the catalog on one screen: models, runs, failures, work left, disk."),
        "ingest": ("ingest", "Tag all new images in the bucket: the whole nightly flow without Airflow."),
        "watch": (
            "ingest",
            "Tag images soon after their upload: follow the bucket's events in CATALOG_EVENT_QUEUE_URL.",
        ),
        "search": ("search", "Search products by text."),
        "similar": ("search", "Find products that look like another product."),
        "embed-text": ("search", "Store the vector of a text, for catalog.search_products in SQL."),
        "retrain": ("retrain", "Train, evaluate, promote and retag: the whole weekly flow without Airflow."),
    },
    "Models": {
        "models": ("models", "List and inspect model versions."),
        "spaces": ("models", "List and drop embedding spaces, the vectors of each encoder."),
        "adopt": ("retrain", "Make a base encoder the first champion, to search before there are labels."),
        "retag": ("retag", "Retag the whole catalog with the champions: the flow of catalog_retag without Airflow."),
        "rollback": ("retag", "Switch back to an earlier champion at once."),
        "build": (
            "retrain",
            "Make the builds of a version for this machine if it has none. Workers do it when they need one.",
        ),
    },
    "Labels": {
        "import-labels": ("retrain", "Import labels to train on. Invalid rows are skipped and listed in a report."),
        "snapshot": ("retrain", "Freeze all labels into a dataset: drop duplicates and split it by group."),
    },
    "Delivery": {
        "changes": (
            "delivery",
            "Print changes of products as JSON lines, each at least once. A new consumer starts now.",
        ),
        "export": (
            "delivery",
            "Write all products with their category, or those that changed since a cursor, to a file.",
        ),
        "deliver": ("delivery", "Post changes of products to the webhooks: the job of the DAG catalog_deliver."),
        "dead-letters": ("delivery", "List changes that a webhook did not accept, and send them again."),
    },
    "DAG stages": {
        "discover": ("ingest", "Stages 1 and 2: compare the bucket with the catalog and write the manifest of a run."),
        "tag-shard": (
            "ingest",
            "Stages 3 to 6: read, decode, predict and write one shard. A repeated call resumes it.",
        ),
        "publish": ("ingest", "Stage 7: update the product tags and the vector index, and make the space live."),
        "map": ("map", "Draw the map of the catalog again if its images have changed."),
        "check-recall": ("search_quality", "Compare searches with exact ones, and store how many neighbors they find."),
        "care": ("search_quality", "Rebuild, vacuum and analyze indexes and tables that need it."),
        "report": ("ingest", "Stage 8: summarize a run, store its report and check it against the limits."),
        "train": ("retrain", "Train a candidate. A repeated call resumes from the last checkpoint."),
        "optimize": ("retrain", "Search for the fastest build of a candidate that passes the fidelity gate."),
        "evaluate": ("retrain", "Score candidate and champion on the same test images, and benchmark the artifact."),
        "gate": ("retrain", "Decide whether a candidate may be promoted, and write its evaluation page."),
        "promote": ("retrain", "Make a candidate that passed its gates the champion, if the champion is unchanged."),
        "decide": ("retrain", "Carry out, once, a promotion or rollback that was confirmed on the page Models."),
        "plan-retag": (
            "retag",
            "Find the images that the champions have not tagged, and write the manifest of a run.",
        ),
        "complete-retag": (
            "retag",
            "Tag images that arrived during the retag, and switch to the champions in one transaction.",
        ),
    },
    "Local stack": {
        "stack": ("local", "Run Postgres, an S3 endpoint, the query service and Airflow on this machine."),
        "serve": ("serve", "Serve text and image queries over HTTP with the live models."),
    },
    "Setup": {
        "migrate": ("setup", "Create or upgrade the schema in CATALOG_DATABASE_URL."),
        "create-buckets": ("setup", "Create the buckets of the source and the artifacts if they are missing."),
        "doctor": (
            "doctor",
            "Check the installation, one line for each part: settings, database, bucket, models, Airflow, machine.",
        ),
        "forget": (
            "forget",
            "Erase images and everything that was made from them. Delete their objects from the bucket first.",
        ),
        "settings": ("settings", "Print every setting with its default, as a .env file."),
    },
}
"""The module and help text of each command, by group, in the order that ``--help`` shows."""

COMMANDS = {name: entry for commands in GROUPS.values() for name, entry in commands.items()}


def load_command(name: str) -> Any:
    """Import the module of a command. All its commands get the option ``--json``."""
    module, _ = COMMANDS[name]
    command = typer.main.get_group(import_module(f"jobs.commands.{module}").app).commands[name]
    for leaf in list_commands(command):
        leaf.params.append(_make_json_option())
    return command


def list_commands(command: Any) -> list[Any]:
    """Return a command, or the commands of a group."""
    subcommands = getattr(command, "commands", None)
    if subcommands is None:
        return [command]
    return [leaf for subcommand in subcommands.values() for leaf in list_commands(subcommand)]


def show_progress_on_terminal() -> None:
    """If standard error is a terminal, show the progress of jobs there, and log lines above it."""
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        return
    # Imported here to keep --help fast.
    from jobs.commands.progress_bar import TerminalProgress
    from jobs.progress import DISPLAY

    progress = TerminalProgress()
    logging.root.handlers = [progress]
    DISPLAY.set(progress.show)


class LazyGroup(TyperGroup):
    """Import the module of a command only when it runs, so ``--help`` and other commands start without it."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.commands = {
            name: TyperCommand(name, help=text, rich_help_panel=group)
            for group, commands in GROUPS.items()
            for name, (_, text) in commands.items()
        }

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        if name not in COMMANDS:
            return name, command, rest
        show_progress_on_terminal()
        return name, load_command(name), rest


app = typer.Typer(
    cls=LazyGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    # Shells complete programs by name, and `python -m jobs` is not a name.
    add_completion=Path(sys.argv[0]).name == PROGRAM,
    epilog=give_examples(
        "catalog status", "catalog ingest --plan", 'catalog search "red dress"', "catalog ingest --help"
    ),
)


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        from jobs.code_version import RELEASE, read_code_version

        show(f"{PROGRAM} {RELEASE}, code {read_code_version()}, Python {platform.python_version()}")
        raise typer.Exit


def _choose_json(is_wanted: bool) -> None:
    if is_wanted:
        choose_json(True)


JsonOption = Annotated[
    bool,
    typer.Option("--json", callback=_choose_json, expose_value=False, help="Print JSON, as in a pipe."),
]
VersionOption = Annotated[
    bool,
    typer.Option(
        "--version", callback=_print_version, is_eager=True, expose_value=False, help="Print the version and exit."
    ),
]


@app.callback()
def _describe(as_json: JsonOption = False, version: VersionOption = False) -> None:
    """Tag a shop's product images, search them, and train the models.

    A report is a table on a terminal, and JSON in a pipe or with --json.
    """


def _make_json_option() -> Any:
    return next(option for option in typer.main.get_command(app).params if option.name == "as_json")


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
    """Run a command of ``catalog`` or ``python -m jobs``."""
    run_app(app)


def run_app(app: typer.Typer) -> None:
    """Run an application. Turn a known error into one line and its exit code."""
    # Options of the command, such as --json, are set in a context that ends with it.
    copy_context().run(_run_app, app)


def _run_app(app: typer.Typer) -> None:
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
