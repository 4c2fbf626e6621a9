import hashlib
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fixtures.shop import Shop, make_image
from jobs.errors import PermanentError
from jobs.images.decode import DecodedImage, DecodeLimits, decode_image
from jobs.images.perceptual_hash import perceptual_hash
from jobs.retrain.labels.import_labels import BATCH_BYTES, batch_rows, import_labels, import_rows
from jobs.retrain.labels.label_row import LabelRow, SkippedRow
from jobs.settings import PROJECT_ROOT
from jobs.storage.locations import S3Uri, example_location

EXAMPLES = """
    SELECT source, source_key, category, title, description, group_name, content_hash, perceptual_hash
    FROM catalog.examples ORDER BY source, source_key COLLATE "C"
"""
HTML = b"<!doctype html><title>Not found</title>"


def read_examples(shop: Shop) -> list[tuple[Any, ...]]:
    return [tuple(bytes(v) if isinstance(v, memoryview) else v for v in row) for row in shop.query(EXAMPLES)]


def count_examples(shop: Shop) -> int:
    ((count,),) = shop.query("SELECT count(*) FROM catalog.examples")
    return int(count)


def write_set(folder: Path, images: dict[str, bytes]) -> Path:
    for name, content in images.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def hats(tmp_path: Path) -> Path:
    """Write a data set of four hats and a dress as folders."""
    images = {f"hat/{number}.jpg": make_image(number) for number in range(4)}
    return write_set(tmp_path / "hats", images | {"dress/1.jpg": make_image(10)})


def test_images_become_examples_with_their_bytes_in_the_artifacts(shop: Shop, hats: Path) -> None:
    report = import_labels(shop.connections, "folders", hats)
    assert (report.source, report.format, report.rows, report.imported, report.skipped) == ("hats", "folders", 5, 5, 0)
    assert (report.categories, report.skipped_uri, report.pruned) == ({"dress": 1, "hat": 4}, None, 0)
    json.dumps(asdict(report))
    examples = read_examples(shop)
    assert [row[:6] for row in examples] == [
        ("hats", "dress/1.jpg", "dress", "", "", "dress/1.jpg"),
        *(("hats", f"hat/{number}.jpg", "hat", "", "", f"hat/{number}.jpg") for number in range(4)),
    ]
    for *_, key, content_hash, image_hash in ((row[1], row[6], row[7]) for row in examples):
        content = (hats / key).read_bytes()
        assert content_hash == hashlib.sha256(content).digest()
        assert shop.connections.store.read(example_location(shop.connections.artifacts, content_hash.hex())) == content
        decoded = decode_image(content, DecodeLimits(10**8, 8, 256))
        assert isinstance(decoded, DecodedImage)
        assert image_hash == perceptual_hash(decoded.pixels)


def test_lists_skipped_rows_with_reasons(shop: Shop, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = make_image(1)
    write_set(tmp_path, {"1.jpg": whole, "2.jpg": whole[: len(whole) // 2], "3.jpg": HTML, "4.jpg": b""})
    (tmp_path / "folder.jpg").mkdir()
    lines = ["image,label", *(f"{n}.jpg,hat" for n in (1, 2, 3, 4, 5)), "folder.jpg,hat", "1.jpg,dress", "6.jpg,", "x"]
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    with caplog.at_level(logging.WARNING):
        report = import_labels(shop.connections, "csv", tmp_path)
    assert (report.rows, report.imported, report.skipped) == (9, 1, 8)
    assert sum(report.skipped_by_reason.values()) == 8
    assert report.skipped_uri is not None
    listed = shop.connections.store.read(S3Uri.parse(report.skipped_uri)).decode().splitlines()
    skipped = {row["line"]: (row["source_key"], row["reason"]) for row in map(json.loads, listed)}
    assert skipped == {
        3: ("2.jpg", "truncated"),
        4: ("3.jpg", "unsupported_format"),
        5: ("4.jpg", "empty_file"),
        6: ("5.jpg", "file_missing"),
        7: ("folder.jpg", "file_unreadable"),
        8: ("1.jpg", "repeated_image"),
        9: ("6.jpg", "no_label"),
        10: ("", "wrong_number_of_fields"),
    }
    assert all(json.loads(line)["detail"] for line in listed)
    assert "skipped line 3 (2.jpg): truncated" in caplog.text
    assert [row[1:3] for row in read_examples(shop)] == [("1.jpg", "hat")]
    # Only the decodable image is stored.
    assert len([key for key in shop.list_artifacts() if key.startswith("examples/")]) == 1


def test_images_of_one_product_share_its_group(shop: Shop, tmp_path: Path) -> None:
    write_set(tmp_path, {f"data/p1_{number}.jpg": make_image(number) for number in (1, 2)})
    (tmp_path / "data.csv").write_text("image,description,display name,category\np1_1.jpg,a,b,hat\np1_2.jpg,a,b,hat\n")
    import_labels(shop.connections, "fashion-products", tmp_path)
    assert [row[2:6] for row in read_examples(shop)] == [("hat", "b", "a", "p1")] * 2


def test_imports_images_from_parquet_files(shop: Shop, tmp_path: Path) -> None:
    for part in range(2):
        images = [{"bytes": make_image(10 * part + number)} for number in range(70)]
        columns = {"images": images, "cloth_type": ["Denim"] * 70, "pid": ["id_1"] * 70, "caption": ["jeans"] * 70}
        pq.write_table(pa.table(columns), tmp_path / f"part-{part}.parquet")
    report = import_labels(shop.connections, "deepfashion", tmp_path, name="deepfashion")
    assert (report.rows, report.imported) == (140, 140)
    assert {row[2:6] for row in read_examples(shop)} == {("Denim", "", "jeans", "id_1")}


def test_size_limit_applies_to_files_and_to_images_in_tables(shop: Shop, tmp_path: Path) -> None:
    small, large = make_image(1, (40, 40)), make_image(2, (400, 400))
    write_set(tmp_path / "files", {"hat/1.jpg": small, "hat/2.jpg": large})
    pq.write_table(pa.table({"image": [small, large], "cloth_type": ["hat"] * 2}), tmp_path / "a.parquet")
    connections = shop.with_settings(max_object_bytes=len(small))
    for format_name, source in (("folders", tmp_path / "files"), ("deepfashion", tmp_path / "a.parquet")):
        report = import_labels(connections, format_name, source, name=format_name)
        assert (report.imported, report.skipped_by_reason) == (1, {"object_too_large": 1})


def test_second_import_updates_changed_examples(shop: Shop, hats: Path) -> None:
    import_labels(shop.connections, "folders", hats)
    first = read_examples(shop)
    assert import_labels(shop.connections, "folders", hats).imported == 5
    assert read_examples(shop) == first
    (hats / "hat" / "0.jpg").write_bytes(make_image(99))
    import_labels(shop.connections, "folders", hats)
    changed = [row[1] for row, before in zip(read_examples(shop), first, strict=True) if row != before]
    assert changed == ["hat/0.jpg"]


def test_does_not_decode_known_bytes_again(shop: Shop, hats: Path) -> None:
    import_labels(shop.connections, "folders", hats)
    (hats / "hat" / "new.jpg").write_bytes(make_image(99))
    # With this limit, decoding any image fails.
    report = import_labels(shop.with_settings(max_pixels=1), "folders", hats, name="again")
    assert (report.imported, report.skipped_by_reason) == (5, {"too_many_pixels": 1})


@pytest.mark.parametrize("damage", [lambda content: content[:-9], lambda content: content[::-1], None])
def test_import_restores_damaged_or_deleted_bytes(shop: Shop, hats: Path, damage: Any) -> None:
    import_labels(shop.connections, "folders", hats)
    content = (hats / "hat" / "0.jpg").read_bytes()
    store = shop.connections.store
    location = example_location(shop.connections.artifacts, hashlib.sha256(content).hexdigest())
    if damage:
        store.write(location, damage(content))
    else:
        store._client.delete_object(Bucket=location.bucket, Key=location.key)
    import_labels(shop.connections, "folders", hats)
    assert store.read(location) == content


def test_prune_deletes_missing_rows_of_this_source_only(shop: Shop, hats: Path) -> None:
    import_labels(shop.connections, "folders", hats)
    import_labels(shop.connections, "folders", hats, name="others")
    (hats / "hat" / "3.jpg").unlink()
    assert import_labels(shop.connections, "folders", hats).pruned == 0
    assert count_examples(shop) == 10
    assert import_labels(shop.connections, "folders", hats, prune=True).pruned == 1
    assert [row[1] for row in read_examples(shop) if row[0] == "hats"] == [
        "dress/1.jpg",
        "hat/0.jpg",
        "hat/1.jpg",
        "hat/2.jpg",
    ]
    assert len([row for row in read_examples(shop) if row[0] == "others"]) == 5


def test_failed_import_prunes_nothing(shop: Shop, hats: Path, tmp_path: Path) -> None:
    import_labels(shop.connections, "folders", hats, name="hats")
    parts = tmp_path / "parts"
    parts.mkdir()
    pq.write_table(pa.table({"image": [make_image(50)], "cloth_type": ["hat"]}), parts / "a.parquet")
    (parts / "b.parquet").write_bytes(b"broken")
    with pytest.raises(PermanentError, match=r"b\.parquet"):
        import_labels(shop.connections, "deepfashion", parts, name="hats", prune=True)
    bad = write_set(tmp_path / "bad", {"hat/0.jpg": HTML})
    with pytest.raises(PermanentError, match="none of the 1 rows"):
        import_labels(shop.connections, "folders", bad, name="hats", prune=True)
    assert count_examples(shop) == 5


def test_fails_with_reasons_if_no_row_can_be_imported(shop: Shop, tmp_path: Path) -> None:
    write_set(tmp_path / "bad", {"hat/1.jpg": HTML, "hat/2.jpg": HTML, "hat/3.jpg": b""})
    with pytest.raises(PermanentError, match=r"2 unsupported_format, 1 empty_file.*skipped\.jsonl"):
        import_labels(shop.connections, "folders", tmp_path / "bad")
    (tmp_path / "empty").mkdir()
    with pytest.raises(PermanentError, match="holds no labeled images in the format folders"):
        import_labels(shop.connections, "folders", tmp_path / "empty")


def test_name_defaults_to_the_folder_and_cannot_be_catalog(shop: Shop, hats: Path) -> None:
    (hats / "labels.csv").write_text("image,label\nhat/1.jpg,hat\n")
    assert import_labels(shop.connections, "csv", hats / "labels.csv").source == "hats"
    assert import_labels(shop.connections, "csv", hats).source == "hats"
    with pytest.raises(PermanentError, match="cannot be named 'catalog'"):
        import_labels(shop.connections, "csv", hats, name="catalog")


def test_holds_one_batch_in_memory(shop: Shop, hats: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.retrain.labels.import_labels.BATCH_ROWS", 2)
    stored_at_request: list[int] = []

    def rows() -> Iterator[LabelRow | SkippedRow]:
        for number in range(4):
            stored_at_request.append(count_examples(shop))
            yield LabelRow(number, f"{number}", make_image(number), "hat", "", "", "group")

    import_rows(shop.connections, "hats", "folders", rows())
    assert stored_at_request == [0, 0, 0, 2]


def test_batches_are_limited_in_rows_and_bytes() -> None:
    def make_rows(*sizes: int) -> list[LabelRow | SkippedRow]:
        return [LabelRow(n, str(n), bytes(size), "hat", "", "", "") for n, size in enumerate(sizes)]

    def measure(rows: list[LabelRow | SkippedRow]) -> list[int]:
        return [len(batch) for batch in batch_rows(rows)]

    limit = BATCH_BYTES
    assert measure(make_rows(*[1] * 600)) == [256, 256, 88]
    assert measure(make_rows(limit + 1, 1, limit - 1, 2)) == [1, 2, 1]
    assert measure([]) == []


PROGRAM = """
import sys
from pathlib import Path
from jobs.connections import connect
from jobs.retrain.labels import import_labels as module
from jobs.retrain.labels.import_labels import import_labels
from jobs.settings import load_settings

if __name__ == "__main__":
    module.BATCH_ROWS = 4
    with connect(load_settings()) as connections:
        import_labels(connections, "folders", Path(sys.argv[1]), prune=True)
"""


def test_next_import_completes_a_killed_one(shop: Shop, tmp_path: Path) -> None:
    images = {f"hat/{number:03d}.jpg": make_image(number) for number in range(200)}
    folder = write_set(tmp_path / "hats", images)
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(folder)], cwd=PROJECT_ROOT, env=os.environ | shop.environment
    ) as process:
        deadline = time.monotonic() + 120
        while not count_examples(shop):
            assert process.poll() is None, "the import ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.kill()
    assert 0 < count_examples(shop) < 200
    report = import_labels(shop.connections, "folders", folder, prune=True)
    assert (report.imported, report.pruned) == (200, 0)
    resumed = read_examples(shop)
    import_labels(shop.connections, "folders", folder, name="uninterrupted")
    assert [row[1:] for row in resumed] == [row[1:] for row in read_examples(shop) if row[0] == "uninterrupted"]
