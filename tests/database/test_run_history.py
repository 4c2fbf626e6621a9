"""The pages show runs as the ledger has them."""

import json
from dataclasses import replace

import pytest
from sqlalchemy import Connection, text

from jobs.database.images import count_roughly, find_image_object
from jobs.database.item_failures import count_failures
from jobs.database.products import list_categories
from jobs.database.promotions import list_champions
from jobs.database.run_history import list_runs, read_recent_speed, read_run_details, sum_chunks
from jobs.database.tables import images, products
from jobs.database.tagging_runs import (
    ChunkCounts,
    PlannedShard,
    RunModels,
    TaggingRun,
    finish_run,
    insert_chunk,
    insert_run,
)
from tests.database.conftest import SmallCatalog


@pytest.fixture
def run_id(connection: Connection, catalog: SmallCatalog) -> str:
    """A run of two chunks, with an image that failed, and a drift."""
    encoder = connection.execute(text("SELECT encoder_version_id FROM catalog.embedding_spaces")).scalar_one()
    models = RunModels(catalog.classifier, encoder, catalog.space_id)
    run = TaggingRun("catalog_ingest/1", "s3://shop/", "s3://m", models, {"new": 7}, 7, {"new_bytes": 7}, 1)
    insert_run(connection, run, [PlannedShard(7, 2)])
    for chunk, (tagged, failed, confidence) in enumerate([(4, 1, [0, 4]), (2, 0, [1, 1])]):
        counts = ChunkCounts(
            entries=tagged + failed,
            tagged=tagged,
            reused=0,
            failed=failed,
            failure_reasons={"corrupt": failed} if failed else {},
            read_seconds=1,
            decode_seconds=2,
            predict_seconds=3,
            write_seconds=0.5,
            wall_seconds=4,
            category_counts={"dress": 1, "hat": tagged - 1},
            confidence_counts=confidence,
            waiting_seconds={"decode": 1.5, "bucket": 0.5},
        )
        insert_chunk(connection, run.run_id, 0, chunk, counts)
    connection.execute(
        text("""
            INSERT INTO catalog.item_failures (image_id, etag, stage, reason, detail, run_id)
            VALUES (:id, 'etag', 'decode', 'corrupt', 'broken', :run)
        """),
        {"id": catalog.image_ids["untagged"], "run": run.run_id},
    )
    report = {"drift": {"is_flagged": True, "sentence": "it differs"}}
    finish_run(connection, run.run_id, "succeeded", report, sum_chunks(connection, run.run_id))
    return run.run_id


def test_a_run_adds_up(connection: Connection, run_id: str) -> None:
    (run,) = list_runs(connection, 5)
    assert (run.run_id, run.state, run.entries, run.tagged, run.failed) == (run_id, "succeeded", 7, 6, 1)
    assert (run.decode_seconds, run.predict_seconds) == (4, 6)
    assert run.waiting_seconds == {"decode": 3.0, "bucket": 1.0}
    assert run.category_counts == {"dress": 2, "hat": 4}
    assert run.confidence_counts == [1, 5]
    assert run.failure_reasons == {"corrupt": 1}
    assert (run.has_drifted, run.drift_sentence) == (True, "it differs")
    assert run.images_per_second is not None
    json.dumps(run.category_counts)


def test_a_run_shows_its_images(connection: Connection, run_id: str, catalog: SmallCatalog) -> None:
    details = read_run_details(connection, run_id)
    assert details is not None
    assert details.images.failed == (catalog.image_ids["untagged"],)
    assert set(details.images.tagged) == set(catalog.image_ids.values()) - {catalog.image_ids["untagged"]}
    assert details.discovered == {"new": 7}


def test_a_finished_run_is_not_added_up_again(connection: Connection, run_id: str) -> None:
    before = list_runs(connection, 5)
    connection.execute(text("DELETE FROM catalog.run_chunks"))
    assert list_runs(connection, 5) == before


def test_a_run_is_added_up_as_long_as_it_goes_on(connection: Connection, run_id: str) -> None:
    connection.execute(text("DELETE FROM catalog.run_chunks WHERE chunk = 1"))
    finish_run(connection, run_id, "failed", {}, sum_chunks(connection, run_id))
    details = read_run_details(connection, run_id)
    assert details is not None
    run = details.summary
    assert (run.state, run.entries, run.planned_entries, run.confidence_counts) == ("failed", 5, 7, [0, 4])
    # Lists leave out what takes long to add up.
    (listed,) = list_runs(connection, 5)
    assert listed == replace(run, confidence_counts=[], category_counts={}, failure_reasons={}, waiting_seconds={})
    connection.execute(text("DELETE FROM catalog.run_chunks"))
    assert sum_chunks(connection, run_id).category_counts == {}
    (run,) = list_runs(connection, 5)
    assert (run.entries, run.images_per_second) == (0, None)


def test_a_run_that_had_nothing_to_do_is_idle(connection: Connection, run_id: str) -> None:
    (busy,) = list_runs(connection, 5)
    assert not busy.is_idle
    idle = replace(busy, planned_entries=0)
    assert idle.is_idle
    assert not replace(idle, state="failed").is_idle
    assert not replace(idle, state="running").is_idle


def test_a_run_that_was_never_planned_has_no_page(connection: Connection) -> None:
    assert read_run_details(connection, "never") is None


def test_the_overview(connection: Connection, run_id: str, catalog: SmallCatalog) -> None:
    classifier, encoder = list_champions(connection)
    assert (classifier.kind, classifier.model_version_id, classifier.live_version_id) == (
        "classifier",
        catalog.classifier,
        catalog.classifier,
    )
    assert (classifier.promoted_by, classifier.gates, encoder.kind) == ("tester", 0, "encoder")
    assert [(failure.reason, failure.images) for failure in count_failures(connection)] == [("corrupt", 1)]
    assert (count_roughly(connection, images), count_roughly(connection, products)) == (7, 4)


def test_categories_of_models_and_people(connection: Connection, catalog: SmallCatalog) -> None:
    connection.execute(
        text("INSERT INTO catalog.labels (image_id, category, labeled_by) VALUES (:id, 'apron', 'me')"),
        {"id": catalog.image_ids["hat"]},
    )
    assert list_categories(connection) == ("apron", "dress", "hat", "shoes")


def test_the_object_of_an_image_is_found(connection: Connection, catalog: SmallCatalog) -> None:
    source = find_image_object(connection, catalog.image_ids["hat"])
    assert source is not None
    assert (source.bucket, source.etag, source.is_deleted) == ("shop", "etag", False)
    assert find_image_object(connection, 0) is None


def test_the_recent_speed_is_that_of_the_slowest_class_of_device(connection: Connection, run_id: str) -> None:
    # Seven images in two chunks of 4 s.
    assert read_recent_speed(connection) == pytest.approx(7 / 8)
    shard = "INSERT INTO catalog.run_shards (run_id, shard, entries, chunks) VALUES (:run, 1, 100, 1)"
    connection.execute(text(shard), {"run": run_id})
    insert_chunk(connection, run_id, 1, 0, ChunkCounts(100, 100, 0, 0, {}, 1, 1, 1, 1, 0.1, device_class="cuda"))
    assert read_recent_speed(connection) == pytest.approx(7 / 8)
    connection.execute(text("DELETE FROM catalog.run_chunks WHERE device_class = 'cpu'"))
    assert read_recent_speed(connection) == pytest.approx(1000)
