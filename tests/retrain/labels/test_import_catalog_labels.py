import hashlib

import pytest
from sqlalchemy import text

from fixtures.shop import Shop, make_image
from jobs.retrain.labels.import_labels import import_catalog_labels, import_labels
from jobs.storage.locations import example_location

EXAMPLES = """
    SELECT source_key, category, title, description, group_name FROM catalog.examples
    WHERE source = 'catalog' ORDER BY source_key COLLATE "C"
"""


def execute(shop: Shop, statement: str, **parameters: object) -> None:
    with shop.connections.engine.begin() as connection:
        connection.execute(text(statement), parameters)


def add_image(shop: Shop, key: str, content: bytes, product_id: str = "p") -> None:
    """Add an image that has been discovered and tagged."""
    shop.put(key, content)
    execute(shop, "INSERT INTO catalog.products (product_id) VALUES (:id) ON CONFLICT DO NOTHING", id=product_id)
    execute(
        shop,
        """
        INSERT INTO catalog.images AS i (bucket, object_key, product_id, etag, size_bytes, content_hash)
        VALUES (:bucket, :key, :product, :etag, :size, :content)
        ON CONFLICT (bucket, object_key)
        DO UPDATE SET etag = excluded.etag, size_bytes = excluded.size_bytes, content_hash = excluded.content_hash
        """,
        bucket=shop.connections.source.bucket,
        key=key,
        product=product_id,
        etag=hashlib.md5(content).hexdigest(),
        size=len(content),
        content=hashlib.sha256(content).digest(),
    )


def label(shop: Shop, key: str, category: str) -> None:
    execute(
        shop,
        """
        INSERT INTO catalog.labels (image_id, category, labeled_by)
        SELECT image_id, :category, 'tester' FROM catalog.images WHERE object_key = :key
        """,
        key=key,
        category=category,
    )


def read_examples(shop: Shop) -> dict[str, tuple[str, str, str, str]]:
    """Return category, title, description and group by object key."""
    bucket = shop.connections.source.bucket
    return {row[0].removeprefix(f"{bucket}/"): row[1:] for row in shop.query(EXAMPLES)}


@pytest.fixture
def labeled_shop(shop: Shop) -> Shop:
    """Set up three images of two products. Two of the images have labels."""
    add_image(shop, "a_1.jpg", make_image(1), "a")
    add_image(shop, "a_2.jpg", make_image(2), "a")
    add_image(shop, "b_1.jpg", make_image(3), "b")
    execute(shop, "UPDATE catalog.products SET display_name = 'A hat', description = ' Red ' WHERE product_id = 'a'")
    label(shop, "a_1.jpg", "dress")
    label(shop, "a_1.jpg", "hat")
    label(shop, "b_1.jpg", "shoe")
    return shop


def test_latest_label_of_an_image_becomes_an_example(labeled_shop: Shop) -> None:
    report = import_catalog_labels(labeled_shop.connections)
    assert (report.source, report.rows, report.imported, report.categories) == ("catalog", 2, 2, {"hat": 1, "shoe": 1})
    assert read_examples(labeled_shop) == {
        "a_1.jpg": ("hat", "A hat", " Red ", "a"),
        "b_1.jpg": ("shoe", "", "", "b"),
    }
    location = example_location(labeled_shop.connections.artifacts, hashlib.sha256(make_image(1)).hexdigest())
    assert labeled_shop.connections.store.read(location) == make_image(1)


def test_imports_nothing_without_labels(shop: Shop) -> None:
    report = import_catalog_labels(shop.connections)
    assert (report.rows, report.imported, report.skipped_uri, report.pruned) == (0, 0, None, 0)


def test_imports_only_what_changed(labeled_shop: Shop) -> None:
    connections = labeled_shop.connections
    import_catalog_labels(connections)
    assert import_catalog_labels(connections).rows == 0
    label(labeled_shop, "a_1.jpg", "cap")
    assert import_catalog_labels(connections).categories == {"cap": 1}
    execute(labeled_shop, "UPDATE catalog.products SET description = 'New' WHERE product_id = 'b'")
    assert import_catalog_labels(connections).categories == {"shoe": 1}
    add_image(labeled_shop, "b_1.jpg", make_image(77), "b")
    assert import_catalog_labels(connections).rows == 1
    assert import_catalog_labels(connections).rows == 0
    assert read_examples(labeled_shop) == {
        "a_1.jpg": ("cap", "A hat", " Red ", "a"),
        "b_1.jpg": ("shoe", "", "New", "b"),
    }


def test_ignores_images_with_unknown_bytes_and_deleted_images(labeled_shop: Shop) -> None:
    execute(labeled_shop, "UPDATE catalog.images SET content_hash = NULL WHERE object_key = 'a_1.jpg'")
    execute(labeled_shop, "UPDATE catalog.images SET deleted_at = now() WHERE object_key = 'b_1.jpg'")
    assert import_catalog_labels(labeled_shop.connections).rows == 0


def test_skips_images_that_vanished_or_changed_since_the_listing(labeled_shop: Shop) -> None:
    label(labeled_shop, "a_2.jpg", "")
    labeled_shop.remove("a_1.jpg")
    labeled_shop.put("b_1.jpg", make_image(99))
    report = import_catalog_labels(labeled_shop.connections)
    assert (report.imported, report.skipped_by_reason) == (
        0,
        {"no_label": 1, "object_missing": 1, "object_replaced": 1},
    )
    assert report.skipped_uri is not None


def test_prunes_images_that_lost_their_label_and_keeps_deleted_images(
    labeled_shop: Shop, tmp_path_factory: pytest.TempPathFactory
) -> None:
    connections = labeled_shop.connections
    import_catalog_labels(connections)
    folder = tmp_path_factory.mktemp("set")
    (folder / "hat").mkdir()
    (folder / "hat" / "1.jpg").write_bytes(make_image(5))
    import_labels(connections, "folders", folder)
    execute(labeled_shop, "UPDATE catalog.images SET deleted_at = now() WHERE object_key = 'b_1.jpg'")
    execute(
        labeled_shop,
        "DELETE FROM catalog.labels l USING catalog.images i WHERE l.image_id = i.image_id AND object_key = 'a_1.jpg'",
    )
    assert import_catalog_labels(connections).pruned == 1
    assert list(read_examples(labeled_shop)) == ["b_1.jpg"]
    assert labeled_shop.query("SELECT count(*) FROM catalog.examples") == [(2,)]


def test_not_clothing_removes_the_example(labeled_shop: Shop) -> None:
    import_catalog_labels(labeled_shop.connections)
    label(labeled_shop, "a_1.jpg", "not clothing")
    label(labeled_shop, "a_2.jpg", "not clothing")
    report = import_catalog_labels(labeled_shop.connections)
    assert (report.rows, report.pruned) == (0, 1)
    assert list(read_examples(labeled_shop)) == ["b_1.jpg"]
    label(labeled_shop, "a_1.jpg", "hat")
    assert import_catalog_labels(labeled_shop.connections).imported == 1
