"""Import labels: each row becomes an example, or is skipped with a reason."""

import json
import logging
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from jobs.connections import Connections
from jobs.database.examples import (
    CATALOG_SOURCE,
    DueLabel,
    Example,
    prune_examples,
    prune_unlabeled_examples,
    stream_due_labels,
)
from jobs.errors import RefusedError
from jobs.progress import open_progress
from jobs.retrain.labels.example_maker import open_example_maker
from jobs.retrain.labels.formats import read_rows
from jobs.retrain.labels.label_row import BucketImage, LabelRow, SkippedRow, SkipReason, measure_image
from jobs.scratch import open_scratch
from jobs.storage.locations import S3Uri, skipped_rows_location

log = logging.getLogger(__name__)

BATCH_ROWS = 256
BATCH_BYTES = 64_000_000
MAX_LOGGED_ROWS = 10
SECONDS_BETWEEN_LOG_LINES = 5


@dataclass(frozen=True)
class ImportReport:
    """Result of an import; ``rows = imported + skipped``.

    ``categories`` counts the imported images by label. ``skipped_uri`` is the list of skipped rows, or None if no row
    was skipped. ``pruned`` is the number of deleted examples.
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


def import_labels(
    connections: Connections, format_name: str, source: Path, name: str | None = None, prune: bool = False
) -> ImportReport:
    """Import a data set. Rows that cannot be imported are listed in the report. Importing again updates the examples.

    ``name`` identifies the data set and defaults to the name of its folder. ``prune`` deletes examples of earlier
    imports with this name that this import did not contain.

    Raises:
        RefusedError: the format or source does not exist, the source has another format, or no row can be imported.
        RetryableError: the bucket or database is unavailable. Run the import again; it covers all rows.
    """
    folder = source.resolve().parent if source.is_file() else source.resolve()
    name = name or folder.name
    if name in ("", CATALOG_SOURCE):
        raise RefusedError(f"a data set cannot be named {name!r}. Choose another --name")
    report = import_rows(connections, name, format_name, read_rows(format_name, source))
    if not report.imported:
        raise RefusedError(_describe_empty_import(report, source))
    if prune:
        with connections.engine.begin() as connection:
            report = replace(report, pruned=prune_examples(connection, name, report.import_id))
    return report


def import_catalog_labels(connections: Connections) -> ImportReport:
    """Update the examples of the catalog's own images to their latest labels. Only changed images are read.

    If an image was deleted from the bucket, its example stays. If it no longer has a label, its example is deleted.

    Raises:
        RetryableError, PermanentError: the bucket or database is unavailable or misconfigured. Run again to resume.
    """

    def read_due_rows() -> Iterator[LabelRow | SkippedRow]:
        with connections.engine.connect() as connection:
            for line, label in enumerate(stream_due_labels(connection), start=1):
                yield _make_catalog_row(line, label)

    report = import_rows(connections, CATALOG_SOURCE, CATALOG_SOURCE, read_due_rows())
    with connections.engine.begin() as connection:
        return replace(report, pruned=prune_unlabeled_examples(connection))


def _make_catalog_row(line: int, label: DueLabel) -> LabelRow | SkippedRow:
    # Not `make_row`: the next import compares these values with the catalog, so they must stay unchanged.
    key = f"{label.bucket}/{label.object_key}"
    if not label.category:
        return SkippedRow(line, key, SkipReason.NO_LABEL, "the latest label is empty")
    image = BucketImage(S3Uri(label.bucket, label.object_key), label.etag, label.size_bytes)
    return LabelRow(line, key, image, label.category, label.title, label.description, label.product_id)


def import_rows(
    connections: Connections, source: str, format_name: str, rows: Iterable[LabelRow | SkippedRow]
) -> ImportReport:
    """Import rows under the name of their source. Importing the same rows again changes nothing.

    Raises:
        RetryableError, PermanentError: the bucket, database or source is unavailable or invalid. Finished batches
            remain stored.
    """
    import_id = f"import-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}"
    with open_scratch() as folder:
        path = folder / "skipped.jsonl"
        with (
            path.open("w", encoding="utf-8") as file,
            open_example_maker(connections, source, import_id) as maker,
            open_progress(connections.engine, import_id, "import_labels") as progress,
        ):
            tally = ImportTally(file)
            read = 0
            for batch in batch_rows(skip_repeated(rows)):
                progress.report("importing labels", read)
                read += len(batch)
                tally.add([row for row in batch if isinstance(row, SkippedRow)])
                tally.add(maker.make_examples([row for row in batch if isinstance(row, LabelRow)]))
        tally.log_progress()
        skipped = tally.reasons.total()
        location = skipped_rows_location(connections.artifacts, import_id) if skipped else None
        if location:
            connections.store.upload(path, location)
    imported = tally.categories.total()
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


def skip_repeated(rows: Iterable[LabelRow | SkippedRow]) -> Iterator[LabelRow | SkippedRow]:
    """Skip rows with the same key as an earlier row, because their labels may disagree."""
    lines: dict[str, int] = {}
    for row in rows:
        first = lines.setdefault(row.source_key, row.line) if isinstance(row, LabelRow) else row.line
        if first == row.line:
            yield row
        else:
            yield SkippedRow(row.line, row.source_key, SkipReason.REPEATED, f"line {first} names the same image")


def batch_rows(rows: Iterable[LabelRow | SkippedRow]) -> Iterator[list[LabelRow | SkippedRow]]:
    """Group rows into batches with a limited number of rows and bytes. An image over the limit gets its own batch."""
    batch: list[LabelRow | SkippedRow] = []
    size_bytes = 0
    for row in rows:
        row_bytes = measure_image(row.image) if isinstance(row, LabelRow) else 0
        if batch and (len(batch) == BATCH_ROWS or size_bytes + row_bytes > BATCH_BYTES):
            yield batch
            batch, size_bytes = [], 0
        batch.append(row)
        size_bytes += row_bytes
    if batch:
        yield batch


@dataclass
class ImportTally:
    """Counts imported and skipped rows. Writes skipped rows to a file as JSON lines, and the first ones to the log."""

    skipped_file: TextIO
    categories: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    started: float = field(default_factory=time.perf_counter)
    _logged: float = field(default_factory=time.perf_counter)

    def add(self, results: Sequence[Example | SkippedRow]) -> None:
        """Count the results of some rows and log the progress every few seconds."""
        for result in results:
            if isinstance(result, SkippedRow):
                self._skip(result)
            else:
                self.categories[result.category] += 1
        if time.perf_counter() - self._logged > SECONDS_BETWEEN_LOG_LINES:
            self.log_progress()

    def log_progress(self) -> None:
        """Log the number of rows so far and the rows per second."""
        self._logged = time.perf_counter()
        imported, skipped = self.categories.total(), self.reasons.total()
        rate = (imported + skipped) / (self._logged - self.started)
        log.info("%d rows imported, %d skipped, %.0f rows/s", imported, skipped, rate)

    def _skip(self, row: SkippedRow) -> None:
        self.skipped_file.write(f"{json.dumps(asdict(row))}\n")
        if self.reasons.total() < MAX_LOGGED_ROWS:
            log.warning("skipped line %d (%s): %s: %s", row.line, row.source_key or "-", row.reason, row.detail)
        self.reasons[row.reason] += 1


def _describe_empty_import(report: ImportReport, source: Path) -> str:
    if not report.rows:
        return f"{source} holds no labeled images in the format {report.format}"
    reasons = ", ".join(f"{count} {reason}" for reason, count in report.skipped_by_reason.items())
    return (
        f"none of the {report.rows} rows of {source} could be imported ({reasons}). Is it in the format "
        f"{report.format}? {report.skipped_uri} lists the rows"
    )
