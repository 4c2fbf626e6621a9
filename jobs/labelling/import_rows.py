"""The loop of an import: rows in, examples and a report out, never more than a batch in memory."""

import logging
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from jobs.connections import Connections
from jobs.labelling.example_maker import open_example_maker
from jobs.labelling.import_report import ImportReport, ImportTally, open_tally
from jobs.labelling.label_row import BadRow, LabelRow, RowFault
from jobs.labelling.read_photo import measure_photo
from jobs.storage.layout import skipped_rows_location

log = logging.getLogger(__name__)

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
