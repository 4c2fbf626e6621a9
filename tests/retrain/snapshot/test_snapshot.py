import json
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
from sqlalchemy import text

from fixtures.shop import Shop
from jobs.database.examples import Example
from jobs.errors import PermanentError
from jobs.retrain.labels.import_labels import import_labels
from jobs.retrain.snapshot.snapshot import SnapshotReport, SnapshotSettings, take_snapshot
from jobs.retrain.snapshot.snapshot_file import Snapshot, encode_snapshot, load_snapshot, make_snapshot
from jobs.storage.locations import S3Uri, snapshot_location
from tests.retrain.snapshot.labeled_examples import add_examples, make_example, make_image_hash
from tests.retrain.snapshot.scenes import encode_jpeg, make_scene

CATEGORIES = ("dress", "hat", "shoes")


def make_examples(count: int = 240, first: int = 0, images_per_group: int = 3) -> list[Example]:
    return [
        make_example(
            number,
            CATEGORIES[number // images_per_group % 3],
            f"group {number // images_per_group}",
            title=f"Product {number}" if number % 2 else "",
        )
        for number in range(first, first + count)
    ]


def take(shop: Shop, **settings: Any) -> tuple[SnapshotReport, Snapshot]:
    report = take_snapshot(shop.connections, SnapshotSettings(**settings))
    return report, load_snapshot(shop.connections.store, shop.connections.artifacts, report.snapshot_id)


def hashes_of(snapshot: Snapshot, *splits: str) -> set[str]:
    return {row.content_hash for row in snapshot.rows if row.split in splits}


def groups_by_split(snapshot: Snapshot) -> dict[str, set[str]]:
    groups: dict[str, set[str]] = {}
    for row in snapshot.rows:
        groups.setdefault(row.group_name, set()).add(row.split)
    return groups


def forget_all(shop: Shop) -> None:
    """Empty the database."""
    with shop.connections.engine.begin() as connection:
        for table in ("split_memory", "dataset_snapshots", "examples"):
            connection.execute(text(f"DELETE FROM catalog.{table}"))


def test_report_adds_up_and_is_stored(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    examples = make_examples()
    copy = replace(examples[0], source_key="copy.jpg")
    near = make_example(1000, "dress", "near", image_hash=make_image_hash(0, 20))
    rare = [make_example(2000 + number, "scarf") for number in range(4)]
    ambiguous = [make_example(3000, "dress"), make_example(3000, "hat", key="ambiguous.jpg")]
    add_examples(shop, [*examples, copy, near, *rare, *ambiguous])
    caplog.set_level(logging.INFO)
    report, snapshot = take(shop)

    assert report.examples == 248
    assert report.images == 240 == len(snapshot.rows) == sum(report.images_by_split.values())
    assert report.dropped == {"exact_duplicate": 1, "contradictory_label": 2, "near_duplicate": 1, "rare_category": 4}
    assert report.rare_categories == {"scarf": 4}
    assert [pair.second for pair in report.contradictions] == ["shop/ambiguous.jpg"]
    assert report.groups in {80, 81}
    assert report.without_text == 120
    assert snapshot.categories == CATEGORIES
    counted = Counter((row.category, row.split) for row in snapshot.rows)
    for category in CATEGORIES:
        assert report.images_by_category[category] == {
            split: counted[category, split] for split in ("train", "validation", "test")
        }
        assert 6 <= counted[category, "test"] <= 12
        assert counted[category, "validation"] >= 3
    assert report.artifact_uri == str(snapshot_location(shop.connections.artifacts, report.snapshot_id))
    stored = shop.query("SELECT snapshot_id, artifact_uri, report FROM catalog.dataset_snapshots")
    assert stored == [(report.snapshot_id, report.artifact_uri, json.loads(json.dumps(asdict(report))))]
    assert "4 rare_category" in caplog.text


def test_parquet_contains_the_labels(shop: Shop) -> None:
    examples = make_examples()
    add_examples(shop, examples)
    _, snapshot = take(shop)
    expected = {
        example.content_hash.hex(): (example.perceptual_hash.hex(), example.category, example.title, example.group_name)
        for example in examples
    }
    assert {
        row.content_hash: (row.perceptual_hash, row.category, row.full_text, row.group_name) for row in snapshot.rows
    } == expected


def test_same_labels_give_the_same_snapshot_in_any_order_and_on_an_empty_database(shop: Shop) -> None:
    examples = make_examples()
    add_examples(shop, examples)
    first, snapshot = take(shop)
    created_at = shop.query("SELECT created_at FROM catalog.dataset_snapshots")
    second, same = take(shop)
    assert second.snapshot_id == first.snapshot_id
    assert same == snapshot
    assert shop.query("SELECT created_at FROM catalog.dataset_snapshots") == created_at

    forget_all(shop)
    for number, position in enumerate(np.random.default_rng(0).permutation(len(examples))):
        if number % 40 == 0:
            add_examples(shop, [examples[position]], f"import-{number}")
        else:
            add_examples(shop, [examples[position]])
    assert take(shop)[0].snapshot_id == first.snapshot_id


def test_changed_labels_give_another_snapshot(shop: Shop) -> None:
    examples = make_examples()
    add_examples(shop, examples)
    first, _ = take(shop)
    add_examples(shop, [replace(examples[0], description="Another text")])
    assert take(shop)[0].snapshot_id != first.snapshot_id
    assert shop.query("SELECT count(*) FROM catalog.dataset_snapshots") == [(2,)]


def test_images_keep_their_side_when_labels_are_added(shop: Shop) -> None:
    examples = make_examples(480)
    add_examples(shop, examples[:240])
    _, old = take(shop)
    # Add new groups, and known images under new keys.
    add_examples(
        shop, [*examples[240:], *(replace(example, source_key=f"2/{example.source_key}") for example in examples)]
    )
    report, new = take(shop)
    assert hashes_of(old, "test") <= hashes_of(new, "test")
    assert hashes_of(old, "train", "validation") <= hashes_of(new, "train", "validation")
    assert 0.09 <= report.images_by_split["test"] / report.images <= 0.13
    assert all(len(splits) == 1 for splits in groups_by_split(new).values())


def test_new_images_join_the_side_of_their_group(shop: Shop) -> None:
    add_examples(shop, make_examples())
    _, old = take(shop)
    sides = {row.group_name: row.split for row in old.rows}
    grown = [make_example(9000 + number, "hat", group) for number, group in enumerate(sorted(sides))]
    add_examples(shop, grown)
    _, new = take(shop)
    for row in new.rows:
        assert (row.split == "test") == (sides[row.group_name] == "test")


def test_renamed_groups_keep_their_test_images(shop: Shop) -> None:
    examples = make_examples()
    add_examples(shop, examples)
    _, old = take(shop)
    add_examples(shop, [replace(example, group_name=f"renamed {example.group_name}") for example in examples])
    _, new = take(shop)
    assert hashes_of(new, "test") == hashes_of(old, "test")


def test_image_tested_in_a_merged_group_stays_in_test(shop: Shop) -> None:
    examples = make_examples()
    add_examples(shop, examples)
    _, old = take(shop)
    tested = next(row for row in old.part("test"))
    trained = next(row for row in old.part("train"))
    of_trained = [example for example in examples if example.group_name == trained.group_name]
    add_examples(shop, [replace(example, group_name=tested.group_name) for example in of_trained])
    _, merged = take(shop)
    assert trained.content_hash in hashes_of(merged, "test")
    add_examples(shop, of_trained)
    _, separated = take(shop)
    assert trained.content_hash in hashes_of(separated, "test")


def test_near_duplicate_of_a_test_image_never_reaches_train(shop: Shop) -> None:
    examples = make_examples()
    add_examples(shop, examples)
    _, old = take(shop)
    tested = {row.content_hash for row in old.part("test")}
    copies = [
        make_example(7000 + number, example.category, f"copies {number}", image_hash=make_image_hash(number, 32))
        for number, example in enumerate(examples)
    ]
    add_examples(shop, copies)
    report, new = take(shop)
    assert report.dropped["near_duplicate"] == 240
    assert hashes_of(new, "test") == tested
    assert new == old


def test_drops_category_whose_images_all_have_to_stay_in_test(shop: Shop) -> None:
    scarves = [make_example(8000 + number, "scarf", f"scarves {number}") for number in range(12)]
    add_examples(shop, [*make_examples(), *scarves])
    take(shop)
    add_examples(shop, [replace(scarf, group_name="all scarves") for scarf in scarves])
    report, snapshot = take(shop)
    assert report.rare_categories == {"scarf": 12}
    assert snapshot.categories == CATEGORIES
    assert report.examples == report.images + sum(report.dropped.values())


def test_leak_check_fails_if_curation_misses_near_duplicates(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    copies = [
        make_example(7000 + number, example.category, f"copies {number}", image_hash=make_image_hash(number, 32))
        for number, example in enumerate(make_examples())
    ]
    add_examples(shop, [*make_examples(), *copies])
    nothing = np.empty((0, 2), dtype=np.int32)
    monkeypatch.setattr("jobs.retrain.snapshot.curation.find_near_duplicates", lambda *_: nothing)
    with pytest.raises(PermanentError, match=r"are near duplicates\. Nothing was stored"):
        take(shop)
    assert shop.query("SELECT count(*) FROM catalog.dataset_snapshots") == [(0,)]


def test_rejects_modified_parquet(shop: Shop) -> None:
    add_examples(shop, make_examples())
    report, snapshot = take(shop)
    rows = [replace(snapshot.rows[0], category="hat"), *snapshot.rows[1:]]
    shop.connections.store.write(S3Uri.parse(report.artifact_uri), encode_snapshot(make_snapshot(rows)))
    with pytest.raises(PermanentError, match="modified"):
        load_snapshot(shop.connections.store, shop.connections.artifacts, report.snapshot_id)


@pytest.mark.parametrize(
    ("examples", "message"),
    [
        ([], "0 labels leave 0 categories.*import-labels"),
        ([make_example(number, "dress") for number in range(30)], "30 labels leave 1 categories"),
        (make_examples(24), "24 labels leave 0 categories .*dropped: 24 rare_category"),
        (make_examples(60, images_per_group=20), "no images for validation and test: 60 images in 3 groups"),
    ],
)
def test_fails_with_advice_on_too_few_labels(shop: Shop, examples: Sequence[Example], message: str) -> None:
    add_examples(shop, examples)
    with pytest.raises(PermanentError, match=message):
        take(shop)
    assert shop.query("SELECT count(*) FROM catalog.dataset_snapshots") == [(0,)]
    assert shop.query("SELECT count(*) FROM catalog.split_memory") == [(0,)]


@pytest.mark.parametrize(
    "settings", [{"test_share": 0}, {"test_share": 0.6}, {"validation_share": 0}, {"near_duplicate_bits": 128}]
)
def test_rejects_invalid_settings(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"validation_share|near_duplicate_bits"):
        SnapshotSettings(**settings)  # type: ignore[arg-type]


def test_drops_recompressed_copies_of_imported_files(shop: Shop, tmp_path: Any) -> None:
    for number in range(36):
        folder = tmp_path / "labels" / CATEGORIES[number % 3]
        folder.mkdir(parents=True, exist_ok=True)
        scene = make_scene(number)
        (folder / f"original{number}.jpg").write_bytes(encode_jpeg(scene))
        (folder / f"small{number}.jpg").write_bytes(encode_jpeg(scene.resize((150, 200)), quality=60))
    (tmp_path / "labels" / "hat" / "ambiguous.jpg").write_bytes(encode_jpeg(make_scene(0), quality=50))
    import_labels(shop.connections, "folders", tmp_path / "labels")
    report, snapshot = take(shop)
    # The dress, its copy, and the same image labeled as a hat.
    assert report.dropped == {"exact_duplicate": 0, "contradictory_label": 3, "near_duplicate": 35, "rare_category": 0}
    assert len(snapshot.rows) == 35
    assert all(snapshot.part(split) for split in ("train", "validation", "test"))
