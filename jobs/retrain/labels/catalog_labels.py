"""What people said of the catalog's own images becomes examples too, under the source ``catalog``."""

from collections.abc import Iterator
from dataclasses import replace

from jobs.connections import Connections
from jobs.database.examples import CATALOG_SOURCE, DueLabel, prune_unlabelled_examples, stream_due_labels
from jobs.retrain.labels.import_labels import ImportReport, import_rows
from jobs.retrain.labels.label_row import BadRow, BucketPhoto, LabelRow, RowFault
from jobs.storage.uri import S3Uri


def import_catalog_labels(connections: Connections) -> ImportReport:
    """Bring the examples of the catalog in line with the latest label of each image; only what differs costs anything.

    An image that is gone from the bucket keeps the example that it once gave; without a label it gives none.

    Raises:
        RetryableError, PermanentError: bucket or database away or wrong; run again, it goes on.
    """
    report = import_rows(connections, CATALOG_SOURCE, CATALOG_SOURCE, _read_due_rows(connections))
    with connections.engine.begin() as connection:
        return replace(report, pruned=prune_unlabelled_examples(connection))


def _read_due_rows(connections: Connections) -> Iterator[LabelRow | BadRow]:
    with connections.engine.connect() as connection:
        for line, label in enumerate(stream_due_labels(connection), start=1):
            yield _make_row(line, label)


def _make_row(line: int, label: DueLabel) -> LabelRow | BadRow:
    # As they stand in the catalog, to be compared with it the next time.
    key = f"{label.bucket}/{label.object_key}"
    if not label.category:
        return BadRow(line, key, RowFault.NO_LABEL, "its latest label is empty")
    photo = BucketPhoto(S3Uri(label.bucket, label.object_key), label.etag, label.size_bytes)
    return LabelRow(line, key, photo, label.category, label.title, label.description, label.product_id)
