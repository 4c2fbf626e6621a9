"""``python -m jobs COMMAND``: one command for each task of the DAGs, and those that people type.

Reports are JSON, the last line of standard output; progress and faults go to standard error. Heavy modules
are imported by the command that needs them, so that ``--help`` is quick.
"""

import errno
import logging
import os
import sys

import typer

from jobs.commands import ingest, local, models, retag, retrain, search, serve, settings, setup
from jobs.commands.terminal import HarmlessFormatter, show
from jobs.errors import JobError, PermanentError, RetryableError
from jobs.stopping import end_at_second_signal

app = typer.Typer(
    help="Jobs of the catalog tagger.", no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False
)
for part in (setup, ingest, retrain, retag, models, search, serve, local, settings):
    app.add_typer(part.app)

_WRONG_PATH = "something else is where a folder should be: see the path, and CATALOG_MODEL_CACHE"
_NO_RIGHT = "give whoever runs the job the right, or name another folder by CATALOG_MODEL_CACHE"
DISK_FAULTS = {
    errno.ENOSPC: "make room on its disk, or name another folder by CATALOG_MODEL_CACHE",
    errno.EDQUOT: "make room on its disk, or name another folder by CATALOG_MODEL_CACHE",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f)",
    errno.EROFS: _NO_RIGHT,
    errno.EACCES: _NO_RIGHT,
    errno.EPERM: _NO_RIGHT,
    errno.ENOTDIR: _WRONG_PATH,
    errno.EISDIR: _WRONG_PATH,
    errno.EEXIST: _WRONG_PATH,
}
"""What is wrong with the machine and not with us, and what to do about it."""


def main() -> None:
    """Run a command of ``python -m jobs``."""
    run_app(app)


def run_app(app: typer.Typer) -> None:
    """Run an application; a known fault becomes one line and its exit code."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(HarmlessFormatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    for noisy in ("botocore", "boto3", "urllib3", "httpx", "yoyo", "matplotlib", "PIL"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # Read when Transformers is imported, also by the processes that a job starts.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    # Read when torch is imported. By default its threads spin while they wait for each other: as soon as something
    # else takes a core, a training needs ten times the processor time.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from jobs.settings import find_ignored_variables

    if ignored := find_ignored_variables():
        logging.warning("%s in .env has no effect: export it instead", ", ".join(ignored))
    try:
        with end_at_second_signal():
            app()
    except JobError as error:
        show(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except OSError as error:
        if error.errno not in DISK_FAULTS:
            raise
        words = DISK_FAULTS[error.errno]
        show(f"error: {error.filename or 'a file'} cannot be written or read: {error.strerror}; {words}", err=True)
        sys.exit(PermanentError.exit_code)
    except MemoryError:
        show("error: this machine has too little memory for the job: give it more, or run less beside it", err=True)
        sys.exit(RetryableError.exit_code)
