"""Discover images from an S3 inventory, which is older than the bucket."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from fixtures.inventories import Entry, write_inventory
from fixtures.shop import Shop
from jobs.database.images import Discovery
from jobs.errors import RefusedError
from jobs.ingest.discover import discover_images


def discover(shop: Shop, inventory: Mapping[str, str], hours_old: float = 0) -> Discovery:
    """Write an inventory of keys and etags, and discover it."""
    folder = shop.connections.artifacts / "inventory"
    connections = shop.with_settings(inventory_uri=str(folder), exclude_patterns=("old/*",))
    entries = [Entry(key, etag) for key, etag in inventory.items()]
    write_inventory(
        connections.store,
        folder,
        connections.source.bucket,
        [entries],
        created_at=datetime.now(UTC) - timedelta(hours=hours_old),
    )
    with connections.engine.begin() as connection:
        return discover_images(connection, connections)


def observe(shop: Shop, key: str, hours_ago: int) -> None:
    """Set when the bucket was found to hold the current version of an image."""
    with shop.connections.engine.begin() as connection:
        statement = text(
            "UPDATE catalog.images SET observed_at = now() - :age * interval '1 h' WHERE object_key = :key"
        )
        connection.execute(statement, {"age": hours_ago, "key": key})


def live_etags(shop: Shop) -> dict[str, str]:
    rows = shop.query("SELECT object_key, etag FROM catalog.images WHERE deleted_at IS NULL")
    return {row[0]: row[1] for row in rows}


@pytest.fixture
def patient_shop(shop: Shop) -> Shop:
    """Open a shop in which all images may vanish."""
    return replace(shop, connections=shop.with_settings(vanished_share_limit=1))


def test_an_inventory_replaces_the_listing(patient_shop: Shop) -> None:
    patient_shop.put("listed.jpg", b"not in the inventory")
    found = discover(patient_shop, {"a.jpg": "1", "b.jpg": "1", "notes.txt": "1", "old/c.jpg": "1"}, hours_old=3)
    assert found == Discovery(new=2, changed=0, restored=0, unchanged=0, vanished=0, known=0)
    assert live_etags(patient_shop) == {"a.jpg": "1", "b.jpg": "1"}
    found = discover(patient_shop, {"a.jpg": "2", "c.jpg": "1"}, hours_old=2)
    assert found == Discovery(new=1, changed=1, restored=0, unchanged=0, vanished=1, known=2)
    assert live_etags(patient_shop) == {"a.jpg": "2", "c.jpg": "1"}
    found = discover(patient_shop, {"a.jpg": "2", "b.jpg": "1", "c.jpg": "1"}, hours_old=1)
    assert found == Discovery(new=0, changed=0, restored=1, unchanged=2, vanished=0, known=2)


def test_what_was_observed_after_the_inventory_stays(patient_shop: Shop) -> None:
    discover(patient_shop, {"uploaded.jpg": "2", "replaced.jpg": "2", "deleted.jpg": "2"}, hours_old=30)
    discover(patient_shop, {"uploaded.jpg": "2", "replaced.jpg": "2"}, hours_old=20)
    for key in ("uploaded.jpg", "replaced.jpg", "deleted.jpg"):
        observe(patient_shop, key, hours_ago=1)
    old = {"replaced.jpg": "1", "deleted.jpg": "1"}
    found = discover(patient_shop, old, hours_old=10)
    assert found == Discovery(new=0, changed=0, restored=0, unchanged=2, vanished=0, known=2)
    assert live_etags(patient_shop) == {"uploaded.jpg": "2", "replaced.jpg": "2"}
    found = discover(patient_shop, old, hours_old=0.5)
    assert found == Discovery(new=0, changed=1, restored=1, unchanged=0, vanished=1, known=2)
    assert live_etags(patient_shop) == old


def test_an_inventory_without_most_images_is_refused(shop: Shop) -> None:
    discover(shop, {f"{number}.jpg": "1" for number in range(4)}, hours_old=2)
    with pytest.raises(RefusedError, match="4 of 4 known images are missing"):
        discover(shop, {}, hours_old=1)
    assert len(live_etags(shop)) == 4
