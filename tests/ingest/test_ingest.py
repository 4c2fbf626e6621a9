"""Run the whole ingest flow with real images, a real bucket and a real database."""

import csv
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import text

from demo.sample_catalog import SampleCatalog, SampleCatalogSpec, render_sample_catalog
from fixtures.champions import make_champion
from fixtures.recorded_progress import record_progress
from fixtures.shop import Shop, TinyModels, make_image
from jobs.database.products import renew_product_tags
from jobs.errors import PermanentError
from jobs.ingest.ingest import ingest
from jobs.ingest.plan import IngestOptions, plan_run

TAGGED = "SELECT count(*) FROM catalog.current_image_tags"
VECTORS = "SELECT count(*) FROM catalog.image_embeddings"


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> SampleCatalog:
    spec = SampleCatalogSpec(labeled_products=1, unlabeled_products=14, duplicates=3)
    return render_sample_catalog(tmp_path_factory.mktemp("sample"), spec, processes=1)


def upload(shop: Shop, folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            shop.put(path.relative_to(folder).as_posix(), path.read_bytes())


def test_every_file_of_the_sample_is_tagged_or_fails_as_expected(tagging_shop: Shop, sample: SampleCatalog) -> None:
    upload(tagging_shop, sample.unlabeled_folder)
    with sample.truth_file.open(encoding="utf-8", newline="") as file:
        truth = {row["image"]: row for row in csv.DictReader(file)}
    report = ingest(tagging_shop.connections, IngestOptions())
    assert tagging_shop.query("SELECT count(*) FROM catalog.map_points") == tagging_shop.query(VECTORS)
    expected = Counter(row["expected"] for row in truth.values())
    assert report.entries == len(truth) == report.tagged + report.reused + report.failed
    assert report.failed == expected["failed"] == 6
    assert report.reused == 3
    failed = tagging_shop.query(
        "SELECT object_key, reason FROM catalog.item_failures JOIN catalog.images USING (image_id)"
    )
    assert {truth[key]["kind"]: reason for key, reason in failed} == {
        "empty file": "empty_file",
        "truncated jpeg": "truncated",
        "html named jpg": "unsupported_format",
        "decompression bomb": "too_many_pixels",
        "one pixel": "too_small",
        "unknown format": "unsupported_format",
    }
    assert report.failure_reasons == dict(Counter(reason for _, reason in failed))
    assert tagging_shop.query(TAGGED) == [(expected["tagged"],)]
    assert tagging_shop.query(VECTORS) == [(expected["tagged"],)]
    turned = tagging_shop.query("SELECT width < height FROM catalog.images WHERE object_key = 'modes/turned.jpg'")
    assert turned == [(True,)]


def test_a_second_run_finds_nothing_to_do(tagging_shop: Shop) -> None:
    tagging_shop.put_images(5)
    ingest(tagging_shop.connections, IngestOptions())
    assert {kind for (kind,) in tagging_shop.query("SELECT kind FROM catalog.readable_changes")} >= {"tag"}
    with tagging_shop.connections.engine.begin() as connection:
        connection.execute(text("UPDATE catalog.changes SET happened_at = now() - interval '31 days'"))
    report = ingest(tagging_shop.connections, IngestOptions())
    assert (report.entries, report.state, report.discovered["unchanged"]) == (0, "succeeded", 5)
    assert tagging_shop.query("SELECT kind FROM catalog.changes") == []


def test_equal_bytes_are_computed_once(tagging_shop: Shop) -> None:
    for number in range(20):
        tagging_shop.put(f"copy{number}_1.jpg", make_image(1))
    report = ingest(tagging_shop.connections, IngestOptions())
    assert (report.tagged, report.reused) == (1, 19)
    assert tagging_shop.query("SELECT count(DISTINCT (probabilities, content_hash)) FROM catalog.image_tags") == [(1,)]
    assert tagging_shop.query("SELECT count(DISTINCT embedding::text), count(*) FROM catalog.image_embeddings") == [
        (1, 20)
    ]
    assert tagging_shop.query("SELECT count(*) FROM catalog.images WHERE width = 96 AND height = 128") == [(20,)]


def test_copies_of_bad_bytes_fail_too(tagging_shop: Shop) -> None:
    for number in range(10):
        tagging_shop.put(f"bad{number}.jpg", make_image(1)[:300])
    report = ingest(tagging_shop.connections, IngestOptions())
    assert (report.failed, report.failure_reasons) == (10, {"truncated": 10})


def test_a_new_classifier_does_not_embed_again(tagging_shop: Shop, tiny_models: TinyModels) -> None:
    tagging_shop.put_images(6)
    ingest(tagging_shop.connections, IngestOptions())
    vectors = tagging_shop.query(
        "SELECT image_id, embedded_at, embedding::text FROM catalog.image_embeddings ORDER BY 1"
    )
    before = tagging_shop.query("SELECT image_id, confidence FROM catalog.current_image_tags ORDER BY 1")
    make_champion(tagging_shop.connections, tiny_models.other_classifier, "classifier", is_live=True)
    assert ingest(tagging_shop.connections, IngestOptions()).tagged == 6
    assert vectors == tagging_shop.query(
        "SELECT image_id, embedded_at, embedding::text FROM catalog.image_embeddings ORDER BY 1"
    )
    assert before != tagging_shop.query("SELECT image_id, confidence FROM catalog.current_image_tags ORDER BY 1")


def test_a_changed_image_is_tagged_again_and_a_vanished_one_disappears(tagging_shop: Shop) -> None:
    keys = tagging_shop.put_images(12)
    ingest(tagging_shop.connections, IngestOptions())
    tagging_shop.put(keys[0], make_image(4321))
    tagging_shop.remove(keys[1])
    tagging_shop.remove(keys[2])
    report = ingest(tagging_shop.connections, IngestOptions())
    assert (report.entries, report.tagged) == (1, 1)
    assert tagging_shop.query(TAGGED) == [(10,)]
    tagging_shop.assert_codes_are_current()
    answers = tagging_shop.query(
        "SELECT object_key FROM catalog.similar_images(:image, 50)", image=image_id(tagging_shop, keys[3])
    )
    assert {key for (key,) in answers} == set(keys) - {keys[1], keys[2], keys[3]}
    images = dict(tagging_shop.query("SELECT product_id, images FROM catalog.current_product_tags"))
    assert (images["p0000"], images["p0001"], images["p0002"]) == (1, 1, 2)


def image_id(shop: Shop, key: str) -> int:
    (row,) = shop.query("SELECT image_id FROM catalog.images WHERE object_key = :key", key=key)
    return int(row[0])


def test_force_computes_everything_again(tagging_shop: Shop) -> None:
    tagging_shop.put_images(5)
    ingest(tagging_shop.connections, IngestOptions())
    before = tagging_shop.query("SELECT image_id, tagged_at FROM catalog.image_tags ORDER BY 1")
    report = ingest(tagging_shop.connections, IngestOptions(force=True))
    assert report.tagged == 5
    after = tagging_shop.query("SELECT image_id, tagged_at FROM catalog.image_tags ORDER BY 1")
    assert all(new[1] > old[1] for old, new in zip(before, after, strict=True))


def test_a_product_tag_combines_its_images(tagging_shop: Shop) -> None:
    tagging_shop.put_images(4)
    ingest(tagging_shop.connections, IngestOptions())
    categories = ("dress", "hat", "shirt", "shoe")
    with tagging_shop.connections.engine.begin() as connection:
        for key, probabilities in (("p0000_1.jpg", [0.9, 0.1, 0, 0]), ("p0000_2.jpg", [0.0, 0.2, 0.8, 0])):
            connection.exec_driver_sql(
                "UPDATE catalog.image_tags SET probabilities = %s, category = %s, tagged_at = now() + interval '1 s'"
                " WHERE image_id = (SELECT image_id FROM catalog.images WHERE object_key = %s)",
                (probabilities, categories[probabilities.index(max(probabilities))], key),
            )
    ingest(tagging_shop.connections, IngestOptions())
    fused = tagging_shop.query("""
        SELECT category, round(confidence::numeric, 3), images, images_disagree
        FROM catalog.product_tags WHERE product_id = 'p0000'
    """)
    assert [(row[0], float(row[1]), *row[2:]) for row in fused] == [("dress", 0.45, 2, True)]


def test_an_image_that_became_too_large_loses_its_tag(tagging_shop: Shop) -> None:
    key = tagging_shop.put_images(2)[0]
    ingest(tagging_shop.connections, IngestOptions())
    tagging_shop.put(key, make_image(1) + bytes(1_000_000))
    careful = tagging_shop.with_settings(max_object_bytes=500_000)
    report = ingest(replace(tagging_shop.connections, settings=careful.settings), IngestOptions())
    assert report.failure_reasons == {"object_too_large": 1}
    assert tagging_shop.query(TAGGED) == [(1,)]


def test_products_that_exchange_images_are_updated(tagging_shop: Shop) -> None:
    tagging_shop.put_images(6)
    ingest(tagging_shop.connections, IngestOptions())
    ((classifier,),) = tagging_shop.query("SELECT DISTINCT classifier_version_id FROM catalog.product_tags")
    engine = tagging_shop.connections.engine
    with engine.begin() as connection:
        assert renew_product_tags(connection, classifier) == 0
    with engine.begin() as connection:
        connection.exec_driver_sql("""
            UPDATE catalog.images SET product_id = CASE product_id WHEN 'p0000' THEN 'p0001' ELSE 'p0000' END
            WHERE object_key IN ('p0000_1.jpg', 'p0001_1.jpg')
        """)
        assert renew_product_tags(connection, classifier) == 2


def test_too_many_failures_fail_the_run_after_saving(tagging_shop: Shop) -> None:
    tagging_shop.put_images(8)
    tagging_shop.put("bad.jpg", b"")
    strict = tagging_shop.with_settings(failed_share_limit=0.1)
    with pytest.raises(PermanentError, match=r"1 of 9 images failed \(empty_file 1\), more than the 10.0%"):
        ingest(replace(tagging_shop.connections, settings=strict.settings), IngestOptions())
    assert tagging_shop.query(TAGGED) == [(8,)]
    assert tagging_shop.query("SELECT state, report ->> 'failed' FROM catalog.tagging_runs") == [("failed", "1")]


def test_a_missing_champion_is_a_clear_error(shop: Shop) -> None:
    with pytest.raises(PermanentError, match="catalog retrain"):
        ingest(shop.connections, IngestOptions())


def test_the_report_is_stored_in_the_database_and_the_bucket(tagging_shop: Shop) -> None:
    tagging_shop.put_images(3)
    report = ingest(tagging_shop.connections, IngestOptions())
    assert f"runs/{report.run_id}/report.json" in tagging_shop.list_artifacts()
    ((row,),) = tagging_shop.query("SELECT report FROM catalog.tagging_runs")
    assert row["tagged"] == report.tagged == 3
    assert all(row[f"{stage}_seconds"] > 0 for stage in ("read", "decode", "predict", "write"))


def test_bytes_that_move_to_another_key_keep_their_tag(tagging_shop: Shop) -> None:
    keys = tagging_shop.put_images(20)
    ingest(tagging_shop.connections, IngestOptions())
    vectors = "SELECT object_key, embedding::text FROM catalog.image_embeddings JOIN catalog.images USING (image_id)"
    before = dict(tagging_shop.query(vectors))
    tagging_shop.put(keys[0], make_image(19))
    tagging_shop.put(keys[19], make_image(0))
    tagging_shop.put(keys[5], make_image(4711))
    tagging_shop.put("moved_1.jpg", make_image(5))
    assert ingest(tagging_shop.connections, IngestOptions()).failed == 0
    after = dict(tagging_shop.query(vectors))
    assert len(after) == 21
    stale = tagging_shop.query("""
        SELECT object_key FROM catalog.images i JOIN catalog.image_embeddings e USING (image_id)
        JOIN catalog.image_tags t USING (image_id)
        WHERE e.content_hash <> i.content_hash OR t.content_hash <> i.content_hash
    """)
    assert stale == []
    assert after[keys[1]] == before[keys[1]]
    assert after[keys[0]] != before[keys[0]]


def test_an_image_replaced_by_a_broken_file_loses_its_results(tagging_shop: Shop) -> None:
    keys = tagging_shop.put_images(6)
    ingest(tagging_shop.connections, IngestOptions())
    tagging_shop.put(keys[0], b"<html>")
    assert ingest(tagging_shop.connections, IngestOptions()).failed == 1
    assert keys[0] not in {key for (key,) in tagging_shop.query("SELECT object_key FROM catalog.current_image_tags")}
    assert tagging_shop.query(VECTORS) == [(5,)]


def test_every_stage_reports_progress(tagging_shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tag 26 images in two shards. Each shard reports its progress after every batch, including failures."""
    tagging_shop.put_images(24)
    tagging_shop.put("copy_1.jpg", make_image(1))
    tagging_shop.put("broken_1.jpg", b"<html>")
    modules = ("plan", "tag_shard", "publish")
    recorded = record_progress(monkeypatch, *(f"jobs.ingest.{module}" for module in modules))
    ingest(tagging_shop.connections, IngestOptions())
    assert recorded.tasks == ["discover", "tag_shard[0]", "tag_shard[1]", "publish"]
    assert recorded.of("listing the bucket")[-1].done == 26
    counts = [(report.done, report.total) for report in recorded.of("tagging")]
    assert counts == [*((done, 24) for done in range(0, 25, 4)), (0, 2), (2, 2)]
    assert recorded.stages()[-1] == "renewing the codes of vectors"


def test_an_unfinished_run_is_resumed(tagging_shop: Shop) -> None:
    tagging_shop.put_images(4)
    plan_run(tagging_shop.connections, "half", IngestOptions())
    report = ingest(tagging_shop.connections, IngestOptions(run_id="half"))
    assert (report.run_id, report.tagged, report.state) == ("half", 4, "succeeded")
