"""Retagging the catalog with new champions, while queries go on."""

import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import text

from fixtures.catalog_rows import label_image
from fixtures.champions import make_champion
from fixtures.job_processes import count_waiting, wait_until
from fixtures.recorded_progress import record_progress
from fixtures.shop import Shop, TinyModels, make_image
from jobs.connections import Connections
from jobs.database.model_coverage import count_unprocessed
from jobs.database.model_versions import ModelKind
from jobs.errors import PermanentError
from jobs.ingest.ingest import ingest
from jobs.ingest.plan import IngestOptions, plan_run
from jobs.ingest.tag_shard import ShardTagger
from jobs.retag.complete import RetagReport, complete_retag
from jobs.retag.retag import plan_retag, retag
from jobs.retag.rollback import roll_back
from jobs.search.by_text import embed_text_query
from jobs.search.encoders import load_text_embedder
from jobs.storage.locations import S3Uri
from tests.ingest.catalog_watch import watch_catalog

WORDS = "red striped dress"
LIVE = "SELECT model_version_id FROM catalog.live_models ORDER BY kind"
CHAMPIONS = "SELECT model_version_id FROM catalog.champion_models ORDER BY kind"
LACKING = """
    SELECT object_key FROM catalog.images i
    WHERE (SELECT count(*) FROM catalog.image_tags t WHERE t.image_id = i.image_id) < 2
       OR (SELECT count(*) FROM catalog.image_embeddings e WHERE e.image_id = i.image_id) < 2
"""


@pytest.fixture
def open_catalog(tagging_shop: Shop) -> Shop:
    """A catalog of thirty images, tagged and searchable by text."""
    tagging_shop.put_images(30)
    ingest(tagging_shop.connections, IngestOptions())
    connections = tagging_shop.connections
    embed_text_query(connections.engine, lambda encoder: load_text_embedder(connections, encoder), WORDS)
    return tagging_shop


@pytest.fixture
def promoted_catalog(open_catalog: Shop, tiny_models: TinyModels) -> Shop:
    """The same catalog with a new champion of each kind."""
    make_champion(open_catalog.connections, tiny_models.other_classifier, "classifier")
    make_champion(open_catalog.connections, tiny_models.other_encoder, "encoder")
    return open_catalog


def tag_planned_shards(connections: Connections, run_id: str) -> None:
    with connections.engine.connect() as connection:
        shards = connection.execute(text("SELECT shard FROM catalog.run_shards WHERE run_id = :r"), {"r": run_id})
        numbers = list(shards.scalars())
    ShardTagger(connections).tag(run_id, numbers)


def count_unprocessed_by_champions(shop: Shop) -> int:
    ((classifier,), (encoder,)) = shop.query(CHAMPIONS)
    ((space,),) = shop.query("SELECT space_id FROM catalog.embedding_spaces WHERE encoder_version_id = :e", e=encoder)
    with shop.connections.engine.connect() as connection:
        return count_unprocessed(connection, classifier, space)


def test_queries_stay_consistent_during_a_retag(promoted_catalog: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = record_progress(monkeypatch, "jobs.retag.complete")
    before = promoted_catalog.query(LIVE)
    with watch_catalog(promoted_catalog, WORDS) as watch:
        report = retag(promoted_catalog.connections)
    watch.assert_whole_and_unmixed()
    assert recorded.tasks == ["complete_retag"]
    assert recorded.stages()[-1] == "switching"
    first, last = watch.answers[0], watch.answers[-1]
    assert (first.images, first.found, first.similar) == (30, 15, 29)
    assert first.image_classifiers != last.image_classifiers
    assert first.space != last.space
    assert promoted_catalog.query(LIVE) == promoted_catalog.query(CHAMPIONS) != before
    assert (report.state, report.entries, report.failed, report.top_up_rounds) == ("switched", 30, 0, 0)
    assert [(switch.kind, switch.replaced_version_id) for switch in report.switched] == [
        (kind, version) for kind, (version,) in zip(("classifier", "encoder"), before, strict=True)
    ]
    assert promoted_catalog.query("SELECT state FROM catalog.embedding_spaces ORDER BY space_id") == [
        ("retired",),
        ("live",),
    ]
    promoted_catalog.assert_codes_are_current()


def test_a_new_classifier_renews_only_tags(open_catalog: Shop, tiny_models: TinyModels) -> None:
    vectors = "SELECT image_id, embedded_at FROM catalog.image_embeddings ORDER BY 1"
    before = open_catalog.query(vectors)
    make_champion(open_catalog.connections, tiny_models.other_classifier, "classifier")
    report = retag(open_catalog.connections)
    assert [switch.kind for switch in report.switched] == ["classifier"]
    assert report.neighbor_overlap_at_10 is None
    assert open_catalog.query(vectors) == before
    assert len(open_catalog.query("SELECT DISTINCT image_id FROM catalog.current_image_tags")) == 30


def test_a_new_encoder_keeps_tags_and_reports_neighbor_agreement(open_catalog: Shop, tiny_models: TinyModels) -> None:
    tags = "SELECT * FROM catalog.image_tags ORDER BY image_id"
    before = open_catalog.query(tags)
    make_champion(open_catalog.connections, tiny_models.other_encoder, "encoder")
    report = retag(open_catalog.connections)
    assert [switch.kind for switch in report.switched] == ["encoder"]
    assert open_catalog.query(tags) == before
    assert report.neighbor_overlap_at_10 is not None
    assert 0 < report.neighbor_overlap_at_10 < 1
    ((kept,),) = open_catalog.query("SELECT report FROM catalog.switches ORDER BY switch_id DESC LIMIT 1")
    assert kept == {
        "processed": 30,
        "lost": 0,
        "neighbor_agreement": {"images": 30, "overlap": report.neighbor_overlap_at_10},
    }


def test_images_ingested_during_a_retag_are_processed_by_old_and_new_models(promoted_catalog: Shop) -> None:
    connections = promoted_catalog.connections
    plan = plan_retag(connections, "retag")
    assert (plan.entries, plan.entries_by_reason) == (30, {"not_tagged": 30})
    ShardTagger(connections).tag("retag", plan.shards[:1])
    promoted_catalog.put_images(6, seed=1)
    assert ingest(connections, IngestOptions()).tagged == 6
    ShardTagger(connections).tag("retag", plan.shards)
    promoted_catalog.put_images(4, seed=2)
    promoted_catalog.put("p0000_1.jpg", make_image(99))
    plan_run(connections, "discovered", IngestOptions())
    with watch_catalog(promoted_catalog, WORDS) as watch:
        report = complete_retag(connections, "retag")
    watch.assert_whole_and_unmixed()
    assert (report.entries, report.top_up_rounds) == (30 + 6 + 4 + 1, 1)
    assert watch.answers[-1].images == 40
    tag_planned_shards(connections, "discovered")
    assert promoted_catalog.query(LACKING) == []
    assert count_unprocessed_by_champions(promoted_catalog) == 0


def test_the_switch_waits_for_a_listing_that_is_being_recorded(promoted_catalog: Shop) -> None:
    """Its images are invisible to the switch until they are committed, and must be processed before it."""
    connections = promoted_catalog.connections
    ShardTagger(connections).tag("retag", plan_retag(connections, "retag").shards)
    promoted_catalog.put("late_1.jpg", make_image(888))
    pages = connections.store.list_pages(replace(connections.source, key="late"))
    (late,) = [item for page in pages for item in page]

    def record() -> None:
        with connections.engine.begin() as connection:
            connection.execute(text("INSERT INTO catalog.products (product_id) VALUES ('late')"))
            connection.execute(
                text("""
                    INSERT INTO catalog.images (bucket, object_key, product_id, etag, size_bytes)
                    VALUES (:bucket, :key, 'late', :etag, :size)
                """),
                {
                    "bucket": connections.source.bucket,
                    "key": late.key,
                    "etag": late.etag,
                    "size": late.size_bytes,
                },
            )
            recorded.set()
            wait_until(lambda: count_waiting(promoted_catalog, "catalog.images") > 0)

    recorded = threading.Event()
    with watch_catalog(promoted_catalog, WORDS) as watch, ThreadPoolExecutor(1) as threads:
        recording = threads.submit(record)
        recorded.wait()
        report = complete_retag(connections, "retag")
        recording.result()
    watch.assert_whole_and_unmixed()
    assert (report.state, report.top_up_rounds, watch.answers[-1].images) == ("switched", 1, 31)


def test_images_that_arrive_during_the_switch_are_not_lost(promoted_catalog: Shop) -> None:
    """A listing either commits before the switch and is counted, or after it and uses the new models."""
    connections = promoted_catalog.connections
    ShardTagger(connections).tag("retag", plan_retag(connections, "retag").shards)
    runs = [f"arrival {number}" for number in range(5)]

    def arrive() -> None:
        for number, run_id in enumerate(runs):
            promoted_catalog.put_images(2, seed=10 + number)
            plan_run(connections, run_id, IngestOptions())
            time.sleep(0.3)

    with watch_catalog(promoted_catalog, WORDS) as watch, ThreadPoolExecutor(1) as threads:
        arrivals = threads.submit(arrive)
        report = complete_retag(connections, "retag")
        arrivals.result()
    watch.assert_whole_and_unmixed()
    assert report.state == "switched"
    for run_id in runs:
        tag_planned_shards(connections, run_id)
    assert promoted_catalog.query("SELECT count(*) FROM catalog.images") == [(40,)]
    assert count_unprocessed_by_champions(promoted_catalog) == 0


def test_labels_given_at_any_time_are_kept(promoted_catalog: Shop) -> None:
    connections = promoted_catalog.connections
    ids = [image_id for (image_id,) in promoted_catalog.query("SELECT image_id FROM catalog.images ORDER BY 1 LIMIT 3")]

    def label(image_id: int) -> None:
        with connections.engine.begin() as connection:
            label_image(connection, image_id, "shirt")

    label(ids[0])
    with watch_catalog(promoted_catalog, WORDS) as watch:
        plan = plan_retag(connections, "retag")
        ShardTagger(connections).tag("retag", plan.shards)
        label(ids[1])
        complete_retag(connections, "retag")
        label(ids[2])
    watch.assert_whole_and_unmixed()
    assert (watch.answers[0].labeled, watch.answers[-1].labeled) == (1, 3)
    labeled = "SELECT image_id, category FROM catalog.current_image_tags WHERE source = 'human' ORDER BY 1"
    assert promoted_catalog.query(labeled) == [(image_id, "shirt") for image_id in ids]
    assert promoted_catalog.query("SELECT count(*) FROM catalog.labels") == [(3,)]


def test_stored_texts_are_embedded_by_the_new_encoder(promoted_catalog: Shop) -> None:
    retag(promoted_catalog.connections)
    texts = promoted_catalog.query("SELECT query_text, encoder_version_id FROM catalog.text_queries ORDER BY 2")
    assert texts == [(WORDS, 2), (WORDS, 4)]


def test_images_of_every_bucket_are_retagged(open_catalog: Shop, tiny_models: TinyModels) -> None:
    connections = open_catalog.connections
    other = S3Uri(f"{connections.source.bucket}-other", "")
    connections.store._client.create_bucket(Bucket=other.bucket)
    try:
        for number in range(3):
            connections.store.write(replace(other, key=f"o{number}.jpg"), make_image(500 + number))
        ingest(replace(connections, source=other), IngestOptions())
        make_champion(connections, tiny_models.other_classifier, "classifier")
        plan = plan_retag(connections, "retag")
        assert (plan.entries, len(plan.shards)) == (33, 3)
        assert retag(connections, "retag").state == "switched"
        assert open_catalog.query("SELECT count(*) FROM catalog.current_image_tags") == [(33,)]
    finally:
        for number in range(3):
            connections.store._client.delete_object(Bucket=other.bucket, Key=f"o{number}.jpg")
        connections.store._client.delete_bucket(Bucket=other.bucket)


def test_a_retag_is_superseded_by_a_later_promotion(
    promoted_catalog: Shop, tiny_models: TinyModels, tmp_path: Path
) -> None:
    connections = promoted_catalog.connections
    before = promoted_catalog.query(LIVE)
    plan = plan_retag(connections, "retag")
    ShardTagger(connections).tag("retag", plan.shards)
    third = shutil.copytree(tiny_models.encoder, tmp_path / "third")
    (third / "note.txt").write_text("another file makes another version")
    make_champion(connections, third, "encoder")
    report = complete_retag(connections, "retag")
    assert (report.state, report.switched) == ("superseded", ())
    assert promoted_catalog.query(LIVE) == before
    report = retag(connections)
    assert (report.state, report.entries) == ("switched", 30)
    assert promoted_catalog.query(LIVE) == promoted_catalog.query(CHAMPIONS)


@pytest.mark.parametrize(("rolled_back", "other"), [("classifier", "encoder"), ("encoder", "classifier")])
def test_a_rollback_of_one_kind_does_not_block_the_switch_of_the_other(
    promoted_catalog: Shop, rolled_back: ModelKind, other: ModelKind
) -> None:
    connections = promoted_catalog.connections
    plan = plan_retag(connections, "retag")
    ShardTagger(connections).tag("retag", plan.shards)
    live = dict(promoted_catalog.query("SELECT kind, model_version_id FROM catalog.live_models"))
    roll_back(connections, rolled_back, live[rolled_back])
    report = complete_retag(connections, "retag")
    assert (report.state, [switch.kind for switch in report.switched]) == ("switched", [other])
    after = dict(promoted_catalog.query("SELECT kind, model_version_id FROM catalog.live_models"))
    assert after[rolled_back] == live[rolled_back]
    assert promoted_catalog.query(LIVE) == promoted_catalog.query(CHAMPIONS)


def test_a_repeated_retag_returns_the_same_report_and_switches_once(promoted_catalog: Shop) -> None:
    report = retag(promoted_catalog.connections, "retag")
    switches = promoted_catalog.query("SELECT * FROM catalog.switches")
    assert complete_retag(promoted_catalog.connections, "retag") == report
    assert retag(promoted_catalog.connections, "retag") == report
    assert promoted_catalog.query("SELECT * FROM catalog.switches") == switches
    assert retag(promoted_catalog.connections).state == "nothing to do"
    assert "runs/retag/report.json" in promoted_catalog.list_artifacts()


@pytest.fixture
def damaged_catalog(promoted_catalog: Shop) -> Shop:
    """Three images were replaced in the bucket after they were tagged, and not discovered yet."""
    for number, key in enumerate(("p0000_1.jpg", "p0000_2.jpg", "p0001_1.jpg")):
        promoted_catalog.put(key, make_image(700 + number))
    return promoted_catalog


def test_a_switch_that_would_lose_many_results_is_refused(damaged_catalog: Shop) -> None:
    before = damaged_catalog.query(LIVE)
    strict = damaged_catalog.with_settings(failed_share_limit=0.05)
    with (
        watch_catalog(damaged_catalog, WORDS) as watch,
        pytest.raises(PermanentError, match="3 of 30 images with results of classifier 1 failed with it"),
    ):
        retag(strict, "retag")
    watch.assert_whole_and_unmixed()
    assert damaged_catalog.query(LIVE) == before
    assert damaged_catalog.query("SELECT state FROM catalog.tagging_runs WHERE run_id = 'retag'") == [("failed",)]
    ingest(damaged_catalog.connections, IngestOptions())
    report = complete_retag(strict, "retag")
    assert (report.state, report.top_up_rounds) == ("switched", 1)
    assert damaged_catalog.query("SELECT count(*) FROM catalog.current_image_tags") == [(30,)]


def test_images_that_new_limits_refuse_keep_their_tags(promoted_catalog: Shop) -> None:
    """Stricter limits refuse every image. Its tags still describe the same bytes."""
    narrow = promoted_catalog.with_settings(max_pixels=100, failed_share_limit=0.05)
    with (
        watch_catalog(promoted_catalog, WORDS) as watch,
        pytest.raises(PermanentError, match="30 of 30 images with results"),
    ):
        retag(narrow, "retag")
    watch.assert_whole_and_unmixed()
    assert promoted_catalog.query("SELECT reason, count(*) FROM catalog.item_failures GROUP BY 1") == [
        ("too_many_pixels", 30)
    ]


def test_without_champions_there_is_nothing_to_do(shop: Shop) -> None:
    plan = plan_retag(shop.connections, "retag")
    assert (plan.entries, plan.shards) == (0, [])
    nothing = RetagReport("retag", "nothing to do", (), 0, 0, 0, None, 0.0)
    assert complete_retag(shop.connections, "retag") == nothing
    assert shop.query("SELECT count(*) FROM catalog.tagging_runs") == [(0,)]


def test_the_first_space_waits_for_the_first_ingest(tagging_shop: Shop) -> None:
    assert retag(tagging_shop.connections).state == "nothing to do"
    assert tagging_shop.query("SELECT state FROM catalog.embedding_spaces") == [("building",)]
    tagging_shop.put_images(2)
    ingest(tagging_shop.connections, IngestOptions())
    assert tagging_shop.query("SELECT state FROM catalog.embedding_spaces") == [("live",)]


def test_an_unplanned_or_untagged_run_is_not_completed(promoted_catalog: Shop) -> None:
    with pytest.raises(PermanentError, match="'retag' was never planned: run `catalog plan-retag"):
        complete_retag(promoted_catalog.connections, "retag")
    plan_retag(promoted_catalog.connections, "retag")
    with pytest.raises(PermanentError, match="30 of 30 images were not processed"):
        complete_retag(promoted_catalog.connections, "retag")
