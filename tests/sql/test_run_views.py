from datetime import timedelta

import pytest
from sqlalchemy import Connection, text

from fixtures.catalog_rows import NewImage, add_images, delete_images, start_run
from jobs.database.item_failures import ItemFailure, record_failures, resolve_failures
from jobs.database.run_history import sum_chunks
from jobs.database.tagging_runs import ChunkCounts, finish_run, insert_chunk
from jobs.failures import RETRYABLE_REASONS
from tests.sql.conftest import Models

CHUNK = ChunkCounts(10, 6, 3, 1, {"truncated": 1}, 1, 2, 3, 4, 5)


def test_a_run_is_the_sum_of_its_chunks(connection: Connection, models: Models) -> None:
    start_run(connection, models.classifier, models.space_id, entries=30)
    insert_chunk(connection, "run", 0, 0, CHUNK)
    insert_chunk(connection, "run", 0, 1, ChunkCounts(20, 18, 0, 2, {"truncated": 1, "empty_file": 1}, 1, 1, 1, 1, 5))
    row = connection.execute(text("SELECT * FROM catalog.tagging_run_summary")).one()
    assert (row.planned_entries, row.entries, row.tagged, row.reused, row.failed) == (30, 30, 24, 3, 3)
    assert row.failure_reasons == {"truncated": 2, "empty_file": 1}
    assert (row.read_seconds, row.decode_seconds, row.predict_seconds, row.write_seconds) == (2, 3, 4, 5)
    # Both chunks were committed at the same time after five seconds: 30 entries in five seconds.
    assert row.images_per_second == 6


def test_the_view_and_the_report_agree(connection: Connection, models: Models) -> None:
    start_run(connection, models.classifier, models.space_id, entries=30)
    insert_chunk(connection, "run", 0, 0, CHUNK)
    finish_run(connection, "run", "succeeded", {}, sum_chunks(connection, "run"))
    row = connection.execute(text("SELECT * FROM catalog.tagging_run_summary")).one()._mapping
    report = sum_chunks(connection, "run")
    for name, value in vars(report).items():
        if name in row:
            assert row[name] == value, name
    assert row["state"] == "succeeded"


def test_a_run_that_has_just_begun_counts_nothing(connection: Connection, models: Models) -> None:
    start_run(connection, models.classifier, models.space_id, entries=30)
    row = connection.execute(text("SELECT * FROM catalog.tagging_run_summary")).one()
    assert (row.state, row.entries, row.failure_reasons, row.images_per_second) == ("running", 0, {}, None)
    assert row.duration >= timedelta(0)
    assert row.finished_at is None


def test_failures_are_counted_by_reason(connection: Connection, models: Models) -> None:
    image_ids = add_images(connection, [NewImage("p", None)] * 6, models.space_id, models.classifier)
    start_run(connection, models.classifier, models.space_id)
    reasons = ["truncated", "truncated", "truncated", "access_denied", "truncated", "truncated"]
    failures = [
        ItemFailure(image_id, "etag", "read" if reason == "access_denied" else "decode", reason, "detail")
        for image_id, reason in zip(image_ids, reasons, strict=True)
    ]
    record_failures(connection, "run", failures)
    record_failures(connection, "run", failures[:1])
    resolve_failures(connection, image_ids[4:5])
    delete_images(connection, image_ids[5:])
    rows = connection.execute(text("SELECT * FROM catalog.item_failure_summary ORDER BY images DESC")).all()
    assert [(row.reason, row.stage, row.images, row.attempts) for row in rows] == [
        ("truncated", "decode", 3, 2),
        ("access_denied", "read", 1, 1),
    ]
    assert all(row.oldest <= row.newest for row in rows)


@pytest.mark.parametrize("reason", [*RETRYABLE_REASONS, "truncated", "empty_file", "object_too_large"])
def test_is_temporary_marks_the_reasons_that_jobs_retry(connection: Connection, models: Models, reason: str) -> None:
    (image_id,) = add_images(connection, [NewImage("p", None)], models.space_id, models.classifier)
    start_run(connection, models.classifier, models.space_id)
    record_failures(connection, "run", [ItemFailure(image_id, "etag", "read", reason, "detail")])
    cures = connection.scalar(text("SELECT is_temporary FROM catalog.item_failure_summary"))
    assert cures == (reason in RETRYABLE_REASONS)
