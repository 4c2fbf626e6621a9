"""Import labels of any format: each row becomes an example, or is skipped with a reason."""

import json
import logging
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from jobs.connections import Connections
from jobs.database.examples import CATALOG_SOURCE, Example, prune_examples
from jobs.errors import PermanentError
from jobs.retrain.labels.example_maker import open_example_maker
from jobs.retrain.labels.formats import read_rows
from jobs.retrain.labels.label_row import BadRow, LabelRow, RowFault, measure_photo
from jobs.scratch import open_scratch
from jobs.storage.layout import skipped_rows_location

log = logging.getLogger(__name__)

SKIPPED_ROWS_IN_LOG = 10
SECONDS_BETWEEN_LOG_LINES = 5


@dataclass(frozen=True)
class ImportReport:
    """What an import did; ``rows = imported + skipped``.

    ``categories`` counts the imported photos by label. ``skipped_uri`` is where the skipped rows are listed, or None
    if there are none, and ``pruned`` the number of examples that were deleted.
    """

    import_id: str
    source: str
    format: str
    rows: int
    imported: int
    skipped: int
    skipped_by_reason: dict[str, int]
    categories: dict[str, int]
    skipped_uri: str | None
    pruned: int = 0


@dataclass
class ImportTally:
    """Counts while an import runs; skipped rows go to a file as JSON lines, and the first of them to the log."""

    skipped_path: Path
    _skipped_file: TextIO
    categories: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    started: float = field(default_factory=time.perf_counter)
    _logged: float = field(default_factory=time.perf_counter)

    def add(self, outcomes: Sequence[Example | BadRow]) -> None:
        """Count what became of some rows, and say every few seconds how far the import is."""
        for outcome in outcomes:
            if isinstance(outcome, BadRow):
                self._skip(outcome)
            else:
                self.categories[outcome.category] += 1
        if time.perf_counter() - self._logged > SECONDS_BETWEEN_LOG_LINES:
            self.log_progress()

    def log_progress(self) -> None:
        """One line: how many rows, and how fast."""
        self._logged = time.perf_counter()
        imported, skipped = self.categories.total(), self.reasons.total()
        rate = (imported + skipped) / (self._logged - self.started)
        log.info("%d rows imported, %d skipped, %.0f rows/s", imported, skipped, rate)

    def close(self) -> None:
        """Write out what is left of the file."""
        self._skipped_file.close()

    def _skip(self, row: BadRow) -> None:
        self._skipped_file.write(f"{json.dumps(asdict(row))}\n")
        if self.reasons.total() < SKIPPED_ROWS_IN_LOG:
            log.warning("skipped line %d (%s): %s: %s", row.line, row.source_key or "-", row.reason, row.detail)
        self.reasons[row.reason] += 1


@contextmanager
def open_tally() -> Iterator[ImportTally]:
    """A tally whose file of skipped rows lives until the end of the block."""
    with open_scratch() as folder:
        path = folder / "skipped.jsonl"
        with path.open("w", encoding="utf-8") as file:
            yield ImportTally(path, file)


BATCH_ROWS = 256
BATCH_BYTES = 64_000_000


def import_rows(
    connections: Connections, source: str, format_name: str, rows: Iterable[LabelRow | BadRow]
) -> ImportReport:
    """Import labelled photos under the name of their source; asked again, it comes to the same.

    Raises:
        RetryableError, PermanentError: bucket, database or source away or wrong; finished batches are stored.
    """
    import_id = f"import-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}"
    with open_tally() as tally:
        with open_example_maker(connections, source, import_id) as maker:
            for batch in batch_rows(refuse_repeated(rows)):
                tally.add([row for row in batch if isinstance(row, BadRow)])
                tally.add(maker.make_examples([row for row in batch if isinstance(row, LabelRow)]))
        tally.log_progress()
        return _report(connections, import_id, source, format_name, tally)


def refuse_repeated(rows: Iterable[LabelRow | BadRow]) -> Iterator[LabelRow | BadRow]:
    """The same rows; one whose key an earlier row has is a bad row, for the two might disagree."""
    lines: dict[str, int] = {}
    for row in rows:
        first = lines.setdefault(row.source_key, row.line) if isinstance(row, LabelRow) else row.line
        if first == row.line:
            yield row
        else:
            yield BadRow(row.line, row.source_key, RowFault.REPEATED, f"line {first} names the same image")


def batch_rows(rows: Iterable[LabelRow | BadRow]) -> Iterator[list[LabelRow | BadRow]]:
    """Rows in lists of bounded length, and of bounded size in bytes unless one photo alone is larger."""
    batch: list[LabelRow | BadRow] = []
    size_bytes = 0
    for row in rows:
        row_bytes = measure_photo(row.photo) if isinstance(row, LabelRow) else 0
        if batch and (len(batch) == BATCH_ROWS or size_bytes + row_bytes > BATCH_BYTES):
            yield batch
            batch, size_bytes = [], 0
        batch.append(row)
        size_bytes += row_bytes
    if batch:
        yield batch


def _report(
    connections: Connections, import_id: str, source: str, format_name: str, tally: ImportTally
) -> ImportReport:
    imported, skipped = tally.categories.total(), tally.reasons.total()
    location = skipped_rows_location(connections.artifacts, import_id) if skipped else None
    if location:
        tally.close()
        connections.store.upload(tally.skipped_path, location)
    return ImportReport(
        import_id=import_id,
        source=source,
        format=format_name,
        rows=imported + skipped,
        imported=imported,
        skipped=skipped,
        skipped_by_reason=dict(tally.reasons.most_common()),
        categories=dict(sorted(tally.categories.items())),
        skipped_uri=str(location) if location else None,
    )


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
