"""A staged listing compared with the images of the catalog, and what is written of it."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text

from jobs.database.images import Discovery, ListedImage, ListingScope, compare_listing, record_listing, stage_listing

PLACE = ("images", "new/")
IMAGES = [
    ListedImage(f"new/sku{number}_1.jpg", f"etag {number}", 2**40 + number, f"sku{number}") for number in range(5)
]
ODD_KEYS = ["new/tab\tnewline\n.jpg", "new/back\\slash\\N.jpg", "new/ünï-写真-👗.jpg", "new/\\.", "new/ space '\" ."]


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    with engine.connect() as connection:
        yield connection


def record(connection: Connection, *pages: Sequence[ListedImage], prefix: str = PLACE[1]) -> Discovery:
    stage_listing(connection, pages)
    discovery = compare_listing(connection, ListingScope(PLACE[0], prefix))
    record_listing(connection, ListingScope(PLACE[0], prefix))
    connection.commit()
    return discovery


def read_images(connection: Connection, columns: str) -> dict[str, Any]:
    rows = connection.execute(text(f"SELECT object_key, ROW({columns})::text FROM catalog.images"))
    return {row[0]: row[1] for row in rows}


def test_all_pages_are_staged_and_empty_ones_do_no_harm(connection: Connection) -> None:
    assert record(connection, IMAGES[:2], [], IMAGES[2:]).new == 5
    stored = connection.execute(text("SELECT object_key, etag, size_bytes, product_id FROM catalog.images ORDER BY 1"))
    assert [ListedImage(*row) for row in stored] == IMAGES


def test_odd_keys_are_stored_as_they_are(connection: Connection) -> None:
    odd = [ListedImage(key, key, 1, key) for key in ODD_KEYS]
    assert record(connection, odd).new == len(odd)
    assert set(read_images(connection, "1")) == set(ODD_KEYS)
    assert record(connection, odd).unchanged == len(odd)


def test_unchanged_images_are_neither_written_nor_locked(connection: Connection) -> None:
    record(connection, IMAGES)
    before = read_images(connection, "xmin, xmax, ctid")
    changed = [replace(IMAGES[0], etag="other"), *IMAGES[1:]]
    assert record(connection, changed) == Discovery(new=0, changed=1, restored=0, unchanged=4, vanished=0, known=5)
    after = read_images(connection, "xmin, xmax, ctid")
    assert {key for key in before if before[key] != after[key]} == {IMAGES[0].object_key}


def test_another_product_is_recorded_and_the_bytes_stay_known(connection: Connection) -> None:
    record(connection, IMAGES)
    connection.execute(text("UPDATE catalog.images SET content_hash = sha256('')"))
    moved = [replace(IMAGES[0], product_id="another"), *IMAGES[1:]]
    assert record(connection, moved).unchanged == 5
    stored = read_images(connection, "product_id, content_hash IS NOT NULL")
    assert stored[IMAGES[0].object_key] == "(another,t)"
    assert set(stored.values()) == {"(another,t)", *(f"({image.product_id},t)" for image in IMAGES[1:])}


@pytest.mark.parametrize("size_or_etag", [{"etag": "other"}, {"size_bytes": 1}])
def test_other_bytes_are_due_again(connection: Connection, size_or_etag: dict[str, Any]) -> None:
    record(connection, IMAGES)
    connection.execute(text("UPDATE catalog.images SET content_hash = sha256('')"))
    assert record(connection, [replace(IMAGES[0], **size_or_etag), *IMAGES[1:]]).changed == 1
    unread = {key for key, has_hash in read_images(connection, "content_hash IS NOT NULL").items() if has_hash == "(f)"}
    assert unread == {IMAGES[0].object_key}


def test_what_is_back_unchanged_is_restored_with_its_hash(connection: Connection) -> None:
    record(connection, IMAGES)
    connection.execute(text("UPDATE catalog.images SET content_hash = sha256('')"))
    assert record(connection, IMAGES[1:]).vanished == 1
    assert record(connection, IMAGES) == Discovery(new=0, changed=0, restored=1, unchanged=4, vanished=0, known=4)
    assert set(read_images(connection, "deleted_at IS NULL, content_hash IS NOT NULL").values()) == {"(t,t)"}


def test_images_beside_the_prefix_do_not_vanish(connection: Connection) -> None:
    beside = [replace(image, object_key=image.object_key.replace("new/", "new_/")) for image in IMAGES]
    record(connection, beside, prefix="new_/")
    record(connection, IMAGES)
    assert record(connection, IMAGES[1:]) == Discovery(new=0, changed=0, restored=0, unchanged=4, vanished=1, known=5)
    gone = {key for key, is_gone in read_images(connection, "deleted_at IS NOT NULL").items() if is_gone == "(t)"}
    assert gone == {IMAGES[0].object_key}


def test_the_same_key_in_another_bucket_is_another_image(connection: Connection) -> None:
    record(connection, IMAGES)
    connection.execute(text("UPDATE catalog.images SET bucket = 'other'"))
    assert record(connection, IMAGES[1:]) == Discovery(new=4, changed=0, restored=0, unchanged=0, vanished=0, known=0)
    counts = text("SELECT bucket || ' ' || count(*) FROM catalog.images WHERE deleted_at IS NULL GROUP BY bucket")
    assert set(connection.scalars(counts)) == {"other 5", "images 4"}


def test_nothing_is_listed(connection: Connection) -> None:
    record(connection, IMAGES)
    assert record(connection) == Discovery(new=0, changed=0, restored=0, unchanged=0, vanished=5, known=5)
