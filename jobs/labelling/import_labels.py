"""``import-labels``: take in the labelled photos of a data set."""

import logging
from dataclasses import replace
from pathlib import Path

from jobs.connections import Connections
from jobs.database.examples import prune_examples
from jobs.database.labels import CATALOG_SOURCE
from jobs.errors import PermanentError
from jobs.labelling.formats import read_rows
from jobs.labelling.import_report import ImportReport
from jobs.labelling.import_rows import import_rows

log = logging.getLogger(__name__)


def import_labels(
    connections: Connections, format_name: str, source: Path, name: str | None = None, prune: bool = False
) -> ImportReport:
    """Import a data set; a row that is no good is skipped into the report, and a second import renews the first.

    ``name`` tells this set's examples from those of others, and is the folder's name unless given. With ``prune``,
    examples that an earlier import left under this name and this one did not bring are deleted.

    Raises:
        PermanentError: no such format or source, not in that format, or without a single good row.
        RetryableError: bucket or database away; run again, it goes over all rows and finishes.
    """
    folder = source.resolve().parent if source.is_file() else source.resolve()
    name = name or folder.name
    if name in ("", CATALOG_SOURCE):
        raise PermanentError(f"a set of labels may not be called {name!r}: give it another --name")
    report = import_rows(connections, name, format_name, read_rows(format_name, source))
    if not report.imported:
        raise PermanentError(_describe_failure(report, source))
    if prune:
        with connections.engine.begin() as connection:
            report = replace(report, pruned=prune_examples(connection, name, report.import_id))
    return report


def _describe_failure(report: ImportReport, source: Path) -> str:
    if not report.rows:
        return f"{source} holds no labelled photos in the format {report.format}"
    reasons = ", ".join(f"{count} {reason}" for reason, count in report.skipped_by_reason.items())
    return (
        f"not one of the {report.rows} rows of {source} is a photo with a label ({reasons}): is it in the format "
        f"{report.format}? {report.skipped_uri} lists them"
    )
