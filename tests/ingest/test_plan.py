"""Plan and preview runs."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from fixtures.champions import make_champion
from fixtures.shop import Shop, TinyModels, make_image
from jobs.errors import PermanentError
from jobs.ingest.ingest import ingest
from jobs.ingest.manifest import choose_shard_size, decode_shard
from jobs.ingest.plan import IngestOptions, plan_run, preview_run
from jobs.ingest.report import report_run
from jobs.retag.retag import plan_retag, retag
from jobs.settings import ComputeSettings
from jobs.storage.locations import S3Uri

TABLES = ("products", "images", "tagging_runs", "run_shards", "embedding_spaces")


def count_rows(shop: Shop) -> dict[str, int]:
    return {table: shop.query(f"SELECT count(*) FROM catalog.{table}")[0][0] for table in TABLES}


def test_a_preview_writes_nothing(tagging_shop: Shop) -> None:
    tagging_shop.put_images(5)
    rows, artifacts = count_rows(tagging_shop), tagging_shop.list_artifacts()
    plan = preview_run(tagging_shop.connections, IngestOptions())
    assert (plan.entries, plan.entries_by_reason, plan.discovered["new"]) == (5, {"new": 5}, 5)
    assert plan.estimated_seconds is None
    assert count_rows(tagging_shop) == rows
    assert tagging_shop.list_artifacts() == artifacts


def test_the_manifest_contains_every_due_image_once(tagging_shop: Shop) -> None:
    keys = tagging_shop.put_images(50)
    plan = plan_run(tagging_shop.connections, "dag/manual__2026-01-01T00:00:00+00:00", IngestOptions())
    assert plan.shards == [0, 1, 2]
    names = [key for key in tagging_shop.list_artifacts() if key.endswith(".parquet")]
    bucket = tagging_shop.connections.artifacts.bucket
    shards = [decode_shard(tagging_shop.connections.store.read(S3Uri(bucket, name))) for name in names]
    assert [shard.header.shard for shard in shards] == [0, 1, 2]
    assert [[len(chunk) for chunk in shard.chunks] for shard in shards] == [[8, 8, 8], [8, 8, 8], [2]]
    listed = [image.object_key for shard in shards for chunk in shard.chunks for image in chunk]
    assert sorted(listed) == sorted(keys)


def test_planning_a_run_again_returns_its_plan(tagging_shop: Shop) -> None:
    tagging_shop.put_images(5)
    first = plan_run(tagging_shop.connections, "run", IngestOptions())
    tagging_shop.put_images(5, seed=1)
    assert plan_run(tagging_shop.connections, "run", IngestOptions()) == first


def test_a_promotion_does_not_affect_a_planned_run(tagging_shop: Shop, tiny_models: TinyModels) -> None:
    tagging_shop.put_images(3)
    plan_run(tagging_shop.connections, "run", IngestOptions())
    planned = tagging_shop.query("SELECT classifier_version_id FROM catalog.tagging_runs")
    promoted = make_champion(tagging_shop.connections, tiny_models.other_classifier, "classifier")
    plan_run(tagging_shop.connections, "run", IngestOptions())
    assert tagging_shop.query("SELECT classifier_version_id FROM catalog.tagging_runs") == planned
    assert planned != [(promoted.model_version_id,)]


def test_images_are_due_for_the_expected_reasons(tagging_shop: Shop, tiny_models: TinyModels) -> None:
    keys = tagging_shop.put_images(6)
    tagging_shop.put("broken.jpg", b"<html>")
    ingest(tagging_shop.connections, IngestOptions())
    assert preview_run(tagging_shop.connections, IngestOptions()).entries == 0
    tagging_shop.put(keys[0], make_image(777))
    tagging_shop.put("new.jpg", make_image(778))
    tagging_shop.put("broken.jpg", make_image(779))
    plan = preview_run(tagging_shop.connections, IngestOptions())
    assert plan.entries_by_reason == {"changed": 2, "new": 1}
    assert plan.estimated_seconds is not None
    make_champion(tagging_shop.connections, tiny_models.other_classifier, "classifier", is_live=True)
    plan = preview_run(tagging_shop.connections, IngestOptions())
    assert plan.entries_by_reason == {"changed": 2, "new": 1, "not_tagged": 5}
    make_champion(tagging_shop.connections, tiny_models.classifier, "classifier", is_live=True)
    with tagging_shop.connections.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM catalog.image_embeddings")
    plan = preview_run(tagging_shop.connections, IngestOptions())
    assert plan.entries_by_reason == {"changed": 2, "new": 1, "not_embedded": 5}
    plan = preview_run(tagging_shop.connections, replace(IngestOptions(), force=True))
    assert plan.entries == 8


def test_new_images_are_tagged_by_the_live_models_until_a_retag(
    tagging_shop: Shop, tiny_models: TinyModels, caplog: pytest.LogCaptureFixture
) -> None:
    tagging_shop.put_images(3)
    ingest(tagging_shop.connections, IngestOptions())
    assert "but not live" not in caplog.text
    models = "SELECT DISTINCT classifier_version_id, encoder_version_id FROM catalog.tagging_runs"
    live = tagging_shop.query(models)
    make_champion(tagging_shop.connections, tiny_models.other_classifier, "classifier")
    make_champion(tagging_shop.connections, tiny_models.other_encoder, "encoder")
    tagging_shop.put_images(2, seed=1)
    assert ingest(tagging_shop.connections, IngestOptions()).entries == 2
    assert tagging_shop.query(models) == live
    assert tagging_shop.query("SELECT count(*) FROM catalog.current_image_tags") == [(5,)]
    assert caplog.text.count("is promoted but not live: run `catalog retag`") == 2


def test_the_limit_restricts_the_number_of_images(tagging_shop: Shop) -> None:
    tagging_shop.put_images(6)
    assert plan_run(tagging_shop.connections, "run", IngestOptions(limit=4)).entries == 4


def test_concurrent_calls_plan_a_run_once(tagging_shop: Shop) -> None:
    tagging_shop.put_images(30)
    with ThreadPoolExecutor(4) as threads:
        plans = list(threads.map(lambda _: plan_run(tagging_shop.connections, "run", IngestOptions()), range(4)))
    assert {(plan.entries, len(plan.shards)) for plan in plans} == {(30, 2)}
    assert tagging_shop.query("SELECT count(*) FROM catalog.tagging_runs") == [(1,)]
    assert ingest(tagging_shop.connections, IngestOptions(run_id="run")).tagged == 30


def test_a_run_belongs_to_its_source_and_command(tagging_shop: Shop) -> None:
    connections = tagging_shop.connections
    tagging_shop.put_images(2)
    plan_run(connections, "night", IngestOptions())
    elsewhere = replace(connections, source=replace(connections.source, key="other/"))
    with pytest.raises(PermanentError, match=r"'night' was planned for s3://.*, not for s3://.*other/\. Start"):
        plan_run(elsewhere, "night", IngestOptions())
    with pytest.raises(PermanentError, match="'night' belongs to `catalog ingest`, not to retag"):
        retag(connections, "night")
    with pytest.raises(PermanentError, match="'nobody' was never planned"):
        ingest(connections, IngestOptions(run_id="nobody"))
    plan_retag(connections, "retag")
    with pytest.raises(PermanentError, match="'retag' belongs to `catalog retag`, not to ingest"):
        report_run(connections, "retag")


@pytest.mark.parametrize(
    ("images", "images_per_second", "slots", "shard_size", "expected"),
    [
        # A night on a GPU is one task.
        (20_000, 1000.0, 1, None, 20_000),
        # About ten minutes each.
        (100_000, 50.0, 1, None, 30_000),
        (100_000, 50.0, 8, None, 12_500),
        # Before the first run, and a list that a job can keep in memory.
        (100_000, None, 2, None, 8192),
        (5_000_000, 4000.0, 2, None, 200_000),
        # A few images are not worth several tasks.
        (300, 50.0, 8, None, 256),
        (0, None, 8, None, 256),
        (100_000, 50.0, 8, 1000, 1000),
    ],
)
def test_a_shard_takes_ten_minutes_and_leaves_no_slot_idle(
    images: int, images_per_second: float | None, slots: int, shard_size: int | None, expected: int
) -> None:
    settings = {"tagging_slots": slots, "shard_size": shard_size}
    assert choose_shard_size(images, images_per_second, ComputeSettings.model_validate(settings)) == expected


def test_shards_are_cut_by_the_speed_of_the_latest_run(tagging_shop: Shop) -> None:
    tagging_shop.put_images(6)
    connections = tagging_shop.with_settings(shard_size=None, tagging_slots=3, chunk_size=2)
    plan_run(connections, "first", IngestOptions())
    assert tagging_shop.query("SELECT entries FROM catalog.run_shards ORDER BY shard") == [(2,), (2,), (2,)]
    assert tagging_shop.query("SELECT entries FROM catalog.tagging_runs") == [(6,)]
    limited = replace(IngestOptions(), limit=3)
    plan_run(connections, "limited", limited)
    shards = "SELECT entries FROM catalog.run_shards WHERE run_id = 'limited' ORDER BY shard"
    assert tagging_shop.query(shards) == [(2,), (1,)]
