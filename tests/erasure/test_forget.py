"""Erase a canary whose key, bytes and vector can be found wherever they are stored."""

import base64
import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlalchemy import Connection, make_url, text

from fixtures.catalog_rows import NewImage, add_images, open_live_space, promote_model
from fixtures.command_line import run_job
from fixtures.postgres import execute
from fixtures.shop import Shop, make_image
from jobs.database import erasure
from jobs.database.engine import create_database_engine
from jobs.database.erasure import REWRITTEN_TABLES, rewrite_tables
from jobs.database.evaluations import NewEvaluation, Training, insert_evaluation, insert_training
from jobs.database.job_progress import JobProgress, upsert_job_progress
from jobs.embedding_map.draw import draw_map
from jobs.erasure.forget import forget_images
from jobs.errors import ConfigurationError, NotFoundError, RefusedError, RetryableError
from jobs.ingest.ingest import ingest
from jobs.ingest.plan import IngestOptions
from jobs.retrain.evaluate.evaluation_record import (
    FLIPS_FILE,
    LABEL_AUDIT_FILE,
    PREDICTIONS_FILE,
    Flip,
    LabelSuspect,
    encode_list,
)
from jobs.retrain.gates.gate_policy import load_gate_policy
from jobs.retrain.gates.gates import decide_gates
from jobs.retrain.snapshot.snapshot import SnapshotSettings, take_snapshot
from jobs.retrain.snapshot.snapshot_file import load_snapshot
from jobs.storage.locations import evaluation_location, skipped_rows_location
from tests.retrain.gates.sample_evaluations import GOOD

PRODUCT = "zz-canary"
"""The last key in the bucket: its rows are the last in their pages, where a plain VACUUM leaves their bytes."""
KEY = f"{PRODUCT}_1.jpg"
TITLE = "Zinzolin plumage"
CONTENT = make_image(990_001)
CONTENT_HASH = hashlib.sha256(CONTENT).digest()
THUMBNAIL = base64.b64encode(CONTENT).decode()
CATEGORIES = ("dress", "hat")


@dataclass(frozen=True)
class Needle:
    """Bytes that only the canary has, by what they are."""

    name: str
    content: bytes


def fill(shop: Shop) -> list[Needle]:
    """Store the canary in every place that can hold an image. Return how to recognize it."""
    for number in range(14):
        shop.put(f"p{number // 2}_{number % 2 + 1}.jpg", make_image(number))
    shop.put(KEY, CONTENT)
    shop.put(f"{PRODUCT}_2.jpg", make_image(3))
    shop.put("products.csv", f"image,display name\n{KEY},{TITLE}\n".encode())
    ingest(shop.connections, IngestOptions())
    ids = dict(shop.query("SELECT object_key, image_id FROM catalog.images"))
    canary = ids[KEY]
    draw_map(shop.connections.engine)
    with shop.connections.engine.begin() as connection:
        for statement in (
            "INSERT INTO catalog.labels (image_id, category, labeled_by) "
            "SELECT image_id, CASE WHEN image_id % 4 < 2 THEN 'dress' ELSE 'hat' END, 'tester' FROM catalog.images",
            "INSERT INTO catalog.review_claims VALUES (:id, 'tester', now())",
            "INSERT INTO catalog.reviews (image_id, classifier_version_id, model_category, confidence, reason, answer, "
            "label_id, reviewed_by) SELECT :id, 1, 'hat', 0.5, 'audit', 'dress', label_id, 'tester' "
            "FROM catalog.labels WHERE image_id = :id",
            "INSERT INTO catalog.item_failures (image_id, etag, stage, reason, detail, run_id) "
            "SELECT :id, 'e', 'read', 'missing', :key, run_id FROM catalog.tagging_runs",
        ):
            connection.execute(text(statement), {"id": canary, "key": KEY})
    learn(shop, canary)
    cached = shop.connections.settings.locations.model_cache / "trainings" / "run" / "shards" / "00000.arrow"
    cached.parent.mkdir(parents=True)
    cached.write_bytes(CONTENT)
    execute(str(shop.connections.settings.locations.database_url), "ANALYZE")
    return describe_canary(shop, canary)


def learn(shop: Shop, canary: int) -> None:
    """Take a snapshot, and train and evaluate the classifier on it, as far as files and rows are concerned."""
    connections, hexadecimal = shop.connections, CONTENT_HASH.hex()
    snapshot_id = take_snapshot(connections, SnapshotSettings(0.2, min_images_per_category=2)).snapshot_id
    skipped = {"line": 1, "source_key": f"bucket/{KEY}", "reason": "no_label", "detail": ""}
    location = skipped_rows_location(connections.artifacts, "import-1")
    connections.store.write(location, f'{json.dumps(skipped)}\n{{"line": 2, "source_key": "other"}}\n'.encode())
    folder = evaluation_location(connections.artifacts, "run", "classifier", datetime.now(UTC))
    flips = [
        Flip(canary, KEY, PRODUCT, "hat", 0.5, "dress", 0.9, THUMBNAIL),
        Flip(0, "k", "p", "h", 0.1, "d", 0.2, None),
    ]
    connections.store.write(folder / FLIPS_FILE, encode_list(flips))
    suspects = [LabelSuspect(hexadecimal, "hat", "dress", 0.1, THUMBNAIL)]
    connections.store.write(folder / LABEL_AUDIT_FILE, encode_list(suspects))
    predictions = BytesIO()
    pq.write_table(pa.table({"content_hash": [hexadecimal, "00"], "cosine": [0.1, 0.2]}), predictions)
    connections.store.write(folder / PREDICTIONS_FILE, predictions.getvalue())
    with connections.engine.begin() as connection:
        insert_training(connection, Training("run", "classifier", snapshot_id, 1, {}, {}))
        record = GOOD["classifier"].as_record()
        insert_evaluation(connection, NewEvaluation("run", "classifier", snapshot_id, 1, None, record, str(folder)))
    decide_gates(connections, "run", "classifier", load_gate_policy())


def describe_canary(shop: Shop, canary: int) -> list[Needle]:
    """Return the canary in all encodings in which its parts are stored."""
    ((vector, indexed, code),) = shop.query(
        "SELECT embedding::text, l2_normalize(embedding)::text, code::text "
        "FROM catalog.image_embeddings JOIN catalog.vector_codes USING (space_id, image_id) WHERE image_id = :id",
        id=canary,
    )
    ((probabilities, perceptual),) = shop.query(
        "SELECT probabilities, perceptual_hash FROM catalog.image_tags t JOIN catalog.examples e USING (content_hash) "
        "WHERE image_id = :id",
        id=canary,
    )
    numbers = np.array(json.loads(vector))
    return [
        Needle("key", KEY.encode()),
        Needle("product", PRODUCT.encode()),
        Needle("title", TITLE.encode()),
        Needle("bytes", CONTENT[-90:-20]),
        Needle("thumbnail", THUMBNAIL[-120:-30].encode()),
        Needle("hash", CONTENT_HASH),
        Needle("hash in hexadecimal", CONTENT_HASH.hex().encode()),
        Needle("vector", numbers.astype("<f2").tobytes()[:48]),
        Needle("float vector", numbers.astype("<f4").tobytes()[:48]),
        Needle("vector of the index", np.array(json.loads(indexed), "<f2").tobytes()[:48]),
        Needle("vector as text", vector[1:60].encode()),
        Needle("code", int(code, 2).to_bytes(len(code) // 8, "big")),
        Needle("probabilities", np.array(probabilities, "<f4").tobytes()),
        Needle("perceptual hash", perceptual),
        Needle("perceptual hash in hexadecimal", perceptual.hex().encode()),
    ]


def search_database(shop: Shop, needles: list[Needle]) -> dict[str, set[str]]:
    """Return which needles are in which files of the server, without the write-ahead log."""
    url = str(shop.connections.settings.locations.database_url)
    execute(url, "CHECKPOINT")
    ((folder, database),) = shop.query(
        "SELECT current_setting('data_directory'), oid::text FROM pg_database WHERE datname = current_database()"
    )
    others = {path for path in Path(folder, "base").iterdir() if path.name != database} | {Path(folder, "pg_wal")}
    files = [
        path for path in Path(folder).rglob("*") if path.is_file() and not others.intersection([path, *path.parents])
    ]
    return search_files(files, needles)


def search_files(files: list[Path], needles: list[Needle]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for path in files:
        content = read_columns(path) if path.suffix == ".parquet" else path.read_bytes()
        for needle in needles:
            if needle.content in content:
                found.setdefault(needle.name, set()).add(path.name)
    return found


def read_columns(path: Path) -> bytes:
    """Return the contents of a Parquet file without its compression."""
    return json.dumps(pq.read_table(path).to_pylist(), default=str).encode() + path.read_bytes()


def search_artifacts(shop: Shop, needles: list[Needle]) -> dict[str, set[str]]:
    folder = shop.bucket_folder.parent / shop.connections.artifacts.bucket
    cache = shop.connections.settings.locations.model_cache
    return search_files([path for root in (folder, cache) for path in root.rglob("*") if path.is_file()], needles)


def test_nothing_of_an_erased_image_is_left(tagging_shop: Shop) -> None:
    shop = tagging_shop
    needles = fill(shop)
    in_database, in_artifacts = search_database(shop, needles), search_artifacts(shop, needles)
    assert {"key", "title", "hash", "vector", "code", "probabilities", "perceptual hash"} <= in_database.keys()
    assert {"key", "title", "bytes", "thumbnail", "hash in hexadecimal"} <= in_artifacts.keys()
    ((snapshot_id,),) = shop.query("SELECT snapshot_id FROM catalog.dataset_snapshots")
    snapshot = load_snapshot(shop.connections.store, shop.connections.artifacts, snapshot_id)

    with pytest.raises(RefusedError, match="2 of 2 images still exist in the bucket"):
        forget_images(shop.connections, [PRODUCT])
    shop.remove(KEY)
    with pytest.raises(RefusedError, match=f"1 of 2 images still exist .*{PRODUCT}_2.jpg: delete them there first"):
        forget_images(shop.connections, [PRODUCT])
    shop.remove(f"{PRODUCT}_2.jpg")

    # Killed after the files were cleaned: the repetition still knows what learned from the image.
    with patch("jobs.erasure.forget.delete_images", side_effect=KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
        forget_images(shop.connections, [PRODUCT])
    assert search_artifacts(shop, needles) == {"bytes": {"00000.arrow"}}
    finished = run_job("forget", PRODUCT, "--no-rewrite", environment=shop.environment)
    assert finished.exit_code == 0, finished.messages
    report = json.loads(finished.output)
    assert (report["images"], report["snapshots"], report["is_rewritten"]) == (2, [snapshot_id], False)
    assert [(one["model_version_id"], one["state"]) for one in report["models"]] == [(1, "champion")]
    assert report["rows"]["image_embeddings"] == 2
    # make_image(3) is the second image of p1, which keeps its results and its label.
    assert {place.partition("/")[2].rpartition("/")[2] for place in report["same_bytes"]} == {"p1_2.jpg"}
    assert shop.query(
        "SELECT count(*) FROM catalog.image_tags t JOIN catalog.images USING (image_id) WHERE object_key = 'p1_2.jpg'"
    ) == [(1,)]

    execute(str(shop.connections.settings.locations.database_url), "VACUUM ANALYZE")
    assert {"key", "vector"} <= search_database(shop, needles).keys(), "a plain VACUUM would be enough"
    report_2 = forget_images(shop.connections, [])
    assert (report_2.images, report_2.is_rewritten) == (0, True)
    # The change feed keeps the id of the product, by which its readers delete their copies.
    assert search_database(shop, needles).keys() == {"product"}
    assert search_artifacts(shop, needles) == {}
    left = load_snapshot(shop.connections.store, shop.connections.artifacts, snapshot_id)
    assert (left.snapshot_id, len(left.erased)) == (snapshot_id, len(snapshot.rows) - len(left.rows))
    with pytest.raises(NotFoundError, match="nothing to erase: it was erased before"):
        forget_images(shop.connections, [PRODUCT])
    # Everything else goes on.
    shop.put("p9_1.jpg", make_image(77))
    assert ingest(shop.connections, IngestOptions()).state == "succeeded"
    shop.assert_codes_are_current()


@pytest.fixture
def small_shop(shop: Shop) -> Shop:
    """A shop with two tagged images of the product p, which are not in the bucket."""
    with shop.connections.engine.begin() as connection:
        space, classifier = open_live_space(connection, 4), promote_model(connection, "classifier")
        vectors = [[1, 0, 0, 0], [0, 1, 0, 0]]
        images = [NewImage("p", vector=vector, object_key=f"p_{n}.jpg") for n, vector in enumerate(vectors, start=1)]
        add_images(connection, images, space, classifier)
        # As if they were in the shop's bucket once.
        connection.execute(
            text("UPDATE catalog.images SET bucket = :bucket"), {"bucket": shop.connections.source.bucket}
        )
    return shop


def test_an_image_is_erased_by_key_and_its_product_stays(small_shop: Shop) -> None:
    report = forget_images(small_shop.connections, ["p_1.jpg"], rewrite=False)
    assert (report.images, report.rows["images"], report.is_rewritten) == (1, 1, False)
    assert small_shop.query("SELECT object_key FROM catalog.images JOIN catalog.products USING (product_id)") == [
        ("p_2.jpg",)
    ]
    uri = f"s3://{small_shop.connections.source.bucket}/p_2.jpg"
    assert forget_images(small_shop.connections, [uri], rewrite=False).rows["products"] == 1


def test_a_running_job_and_a_wrong_name_are_refused(small_shop: Shop) -> None:
    connections = small_shop.connections
    with connections.engine.begin() as connection:
        upsert_job_progress(connection, "night", "tag_shard[0]", JobProgress("tagging", 3, 6), 2.0)
    with pytest.raises(RefusedError, match=r"tag_shard\[0\] of night is running .* pause the DAGs and wait"):
        forget_images(connections, ["p"])
    with pytest.raises(NotFoundError, match="no image or product 'q'"):
        forget_images(connections, ["p", "q"])
    assert small_shop.query("SELECT count(*) FROM catalog.images") == [(2,)]


def test_rows_that_an_older_transaction_sees_are_rewritten_later(small_shop: Shop) -> None:
    connections = small_shop.connections
    with connections.engine.connect() as reader, reader.begin():
        reader.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
        reader.execute(text("SELECT 1 FROM pg_class LIMIT 1"))
        with pytest.raises(RetryableError, match=r"still visible to an older transaction .* run `catalog forget`"):
            forget_images(connections, ["p"])
    assert small_shop.query("SELECT count(*) FROM catalog.erasures WHERE rewritten_at IS NULL") == [(1,)]
    # The name is gone, but the erasure is not finished.
    with pytest.raises(NotFoundError, match=r"no image or product 'p'.* without names"):
        forget_images(connections, ["p"])
    report = forget_images(connections, [])
    assert (report.images, report.is_rewritten) == (0, True)


def test_a_table_in_use_or_a_running_job_ends_the_rewrite(small_shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(erasure, "LOCK_SECONDS", 0.1)
    monkeypatch.setattr(erasure, "LOCK_ATTEMPTS", 2)
    connections = small_shop.connections
    with connections.engine.begin() as reader:
        reader.execute(text("SELECT count(*) FROM catalog.products"))
        with pytest.raises(RetryableError, match=r"another session uses catalog.products, .* `catalog forget` without"):
            forget_images(connections, ["p"])
    with connections.engine.begin() as connection:
        upsert_job_progress(connection, "night", "care", JobProgress("rebuilding", 1, 1), 2.0)
    with pytest.raises(RefusedError, match="care of night is running"):
        forget_images(connections, [])


def test_an_erasure_during_a_rewrite_is_rewritten_later(small_shop: Shop) -> None:
    connections = small_shop.connections
    forget_images(connections, ["p_1.jpg"], rewrite=False)

    def erase_another(connection: Connection, name: str) -> None:
        if name.endswith("products"):
            forget_images(connections, ["p_2.jpg"], rewrite=False)

    with patch.object(erasure, "_rewrite_table", erase_another):
        rewrite_tables(connections.engine)
    assert small_shop.query("SELECT rewritten_at IS NULL FROM catalog.erasures ORDER BY erasure_id") == [
        (False,),
        (True,),
    ]


def test_dead_letters_lose_products_that_are_erased(small_shop: Shop) -> None:
    changes = [{"product_id": name, "kind": "tag"} for name in ("q", "p", None)]
    with small_shop.connections.engine.begin() as connection:
        connection.execute(text("INSERT INTO catalog.products (product_id) VALUES ('q')"))
        for letter in (changes, changes[1:2]):
            connection.execute(
                text("INSERT INTO catalog.dead_letters (webhook, changes, error) VALUES ('shop', :changes, 'e')"),
                {"changes": json.dumps(letter)},
            )
    # The product stays until its last image is erased.
    assert "dead_letters" not in forget_images(small_shop.connections, ["p_1.jpg"], rewrite=False).rows
    assert forget_images(small_shop.connections, ["p_2.jpg"], rewrite=False).rows["dead_letters"] == 2
    assert small_shop.query("SELECT changes FROM catalog.dead_letters") == [([changes[0], changes[2]],)]


def test_every_table_with_images_is_erased_and_rewritten(small_shop: Shop) -> None:
    references = small_shop.query("""
        SELECT DISTINCT conrelid::regclass::text FROM pg_constraint
        WHERE confrelid IN ('catalog.images'::regclass, 'catalog.products'::regclass) AND conparentid = 0
    """)
    tables = {name.removeprefix("catalog.") for (name,) in references}
    assert tables - set(REWRITTEN_TABLES) == set()


def test_a_file_that_the_role_does_not_own_is_not_silently_kept(small_shop: Shop) -> None:
    url = str(small_shop.connections.settings.locations.database_url)
    execute(url, "CREATE ROLE catalog_member LOGIN PASSWORD 'x'")
    try:
        execute(
            url,
            "GRANT ALL ON SCHEMA catalog TO catalog_member",
            "GRANT ALL ON ALL TABLES IN SCHEMA catalog TO catalog_member",
        )
        member = make_url(url).set(username="catalog_member", password="x").render_as_string(hide_password=False)
        engine = create_database_engine(member)
        with pytest.raises(ConfigurationError, match="cannot be rewritten, because the role owns neither"):
            rewrite_tables(engine)
        engine.dispose()
    finally:
        execute(url, "DROP OWNED BY catalog_member", "DROP ROLE catalog_member")
