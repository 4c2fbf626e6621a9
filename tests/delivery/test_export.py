"""`catalog export` writes a snapshot from which the feed continues without a gap."""

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from sqlalchemy import text

from fixtures.catalog_rows import register_model, tag_products
from fixtures.command_line import run_job
from fixtures.shop import Shop
from jobs.database.changes import Cursor, read_changes
from jobs.database.product_snapshot import open_snapshot
from jobs.database.promotions import Switch, insert_switch
from jobs.errors import EXIT_PERMANENT
from tests.delivery.conftest import TaggedCatalog


def run_export(catalog: TaggedCatalog, to: Path, *words: str) -> dict[str, Any]:
    """Return the report of an export."""
    finished = run_job("export", "--to", str(to), *words, environment=catalog.environment)
    assert finished.exit_code == 0, finished.messages
    report: dict[str, Any] = json.loads(finished.output)
    assert report["size_bytes"] == to.stat().st_size
    return report


def read_rows(path: Path, file_format: str) -> list[dict[str, Any]]:
    if file_format == "parquet":
        rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
        return rows
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file)) if file_format == "csv" else [json.loads(line) for line in file]


@pytest.mark.parametrize("file_format", ["parquet", "csv", "jsonl"])
def test_every_format_has_all_products(catalog: TaggedCatalog, tmp_path: Path, file_format: str) -> None:
    catalog.label(2, 'a "red", hat')
    to = tmp_path / "products"
    assert run_export(catalog, to, "--format", file_format)["products"] == 3
    first, second, _ = read_rows(to, file_format)
    assert [str(first[name]) for name in ("product_id", "category", "source")] == ["p1", "dress", "model"]
    assert float(first["confidence"]) == pytest.approx(0.8)
    assert str(first["is_deleted"]).lower() == "false"
    assert int(first["classifier_version_id"]) == catalog.classifier
    assert second["category"] == 'a "red", hat'
    assert not second["classifier_version_id"]
    assert {path.name for path in tmp_path.iterdir()} == {"products"}


def test_vectors_are_means_of_the_live_space(catalog: TaggedCatalog, tmp_path: Path) -> None:
    for file_format in ("parquet", "jsonl"):
        run_export(catalog, tmp_path / "products", "--format", file_format, "--vectors")
        assert [row["vector"] for row in read_rows(tmp_path / "products", file_format)] == [[1, 0, 0]] * 3
    finished = run_job(
        "export", "--to", "products.csv", "--format", "csv", "--vectors", environment=catalog.environment
    )
    assert finished.exit_code == EXIT_PERMANENT


def test_products_are_read_in_batches(catalog: TaggedCatalog, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large catalog does not fit into memory."""
    monkeypatch.setattr("jobs.database.product_snapshot.BATCH", 2)
    with open_snapshot(catalog.engine, None, with_vectors=False) as snapshot:
        assert [len(batch) for batch in snapshot.batches] == [2, 1]


def test_an_export_since_a_cursor_has_what_changed(catalog: TaggedCatalog, tmp_path: Path) -> None:
    cursor = run_export(catalog, tmp_path / "all")["cursor"]
    catalog.label(2, "hat")
    with catalog.engine.begin() as connection:
        connection.execute(text("UPDATE catalog.images SET deleted_at = now() WHERE product_id = 'p3'"))
    report = run_export(catalog, tmp_path / "changed", "--format", "jsonl", "--since", cursor)
    assert (report["products"], report["deleted"]) == (1, 1)
    rows = read_rows(tmp_path / "changed", "jsonl")
    assert [(row["product_id"], row["is_deleted"], row["category"]) for row in rows] == [
        ("p2", False, "hat"),
        ("p3", True, None),
    ]
    report = run_export(catalog, tmp_path / "changed", "--format", "jsonl", "--since", report["cursor"])
    assert (report["products"], report["deleted"]) == (0, 0)


def test_after_a_switch_an_export_since_a_cursor_has_all_products(catalog: TaggedCatalog, tmp_path: Path) -> None:
    cursor = run_export(catalog, tmp_path / "all")["cursor"]
    with catalog.engine.begin() as connection:
        version = register_model(connection, "classifier")
        tag_products(connection, version, {"p1": "hat", "p2": "hat"})
        insert_switch(connection, Switch("classifier", version, catalog.classifier))
    report = run_export(catalog, tmp_path / "changed", "--format", "jsonl", "--since", cursor)
    assert (report["products"], report["deleted"]) == (2, 1)


def test_the_feed_continues_from_an_export_during_open_transactions(catalog: TaggedCatalog) -> None:
    """The snapshot lacks a change that commits later, so the cursor must lie before it."""
    with catalog.engine.connect() as late:
        late.execute(
            text("INSERT INTO catalog.labels (image_id, category, labeled_by) VALUES (:id, 'hat', 'x')"),
            {"id": catalog.image_ids[0]},
        )
        catalog.label(2, "hat")
        with open_snapshot(catalog.engine, None, with_vectors=False) as snapshot:
            late.commit()
            rows = [row for batch in snapshot.batches for row in batch]
    assert [row.category for row in rows] == ["dress", "hat", "dress"]
    with catalog.engine.connect() as connection:
        assert "p1" in [change.product_id for change in read_changes(connection, snapshot.cursor, 100)]
        assert read_changes(connection, Cursor(snapshot.cursor.transaction_id + 2, 0), 100) == []


def test_an_export_can_be_uploaded(shop: Shop) -> None:
    target = str(shop.connections.artifacts / "exports" / "products.parquet")
    finished = run_job("export", "--to", target, environment=shop.environment)
    assert finished.exit_code == 0, finished.messages
    assert json.loads(finished.output)["products"] == 0
    assert shop.list_artifacts() == ["exports/products.parquet"]


@pytest.mark.parametrize(
    "to",
    [
        "s3://bucket",
        "s3://bucket/folder/",
        "http://host/file",
        "no/such/folder/file",
        ".",
        "/dev/null",
        "/proc/products.parquet",
    ],
)
def test_a_location_that_is_not_a_file_is_refused(catalog: TaggedCatalog, to: str) -> None:
    finished = run_job("export", "--to", to, environment=catalog.environment)
    assert finished.exit_code == EXIT_PERMANENT
    assert "--to" in finished.error
