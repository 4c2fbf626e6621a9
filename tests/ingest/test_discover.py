"""Test discovery: compare the bucket with the catalog, and read the products file."""

from dataclasses import replace
from typing import Any

import pytest

from fixtures.shop import Shop, make_image
from jobs.database.images import Discovery, ProductText
from jobs.errors import PermanentError
from jobs.ingest.discover import discover_images, read_product_texts
from jobs.storage.locations import S3Uri

HEADER = "image,description,display name,category"


def discover(shop: Shop, prefix: str = "", **changes: Any) -> Discovery:
    source = S3Uri(shop.connections.source.bucket, prefix)
    connections = replace(shop.with_settings(**changes), source=source)
    with connections.engine.begin() as connection:
        return discover_images(connection, connections)


def live_keys(shop: Shop) -> set[str]:
    return {key for (key,) in shop.query("SELECT object_key FROM catalog.images WHERE deleted_at IS NULL")}


def test_new_changed_unchanged_vanished_and_restored(shop: Shop) -> None:
    keys = shop.put_images(10)
    assert discover(shop) == Discovery(new=10, changed=0, restored=0, unchanged=0, vanished=0, known=0)
    shop.put(keys[0], make_image(999))
    shop.remove(keys[1])
    shop.put("extra.png", make_image(5, image_format="PNG"))
    assert discover(shop) == Discovery(new=1, changed=1, restored=0, unchanged=8, vanished=1, known=10)
    assert live_keys(shop) == {*keys, "extra.png"} - {keys[1]}
    shop.put(keys[1], make_image(1))
    assert discover(shop) == Discovery(new=0, changed=0, restored=1, unchanged=10, vanished=0, known=10)
    assert keys[1] in live_keys(shop)


def test_changed_bytes_lose_their_hash(shop: Shop) -> None:
    (key, other) = shop.put_images(2)
    discover(shop)
    with shop.connections.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE catalog.images SET content_hash = sha256('')")
    shop.put(key, make_image(999))
    discover(shop)
    hashed = shop.query("SELECT object_key FROM catalog.images WHERE content_hash IS NOT NULL")
    assert hashed == [(other,)]


def test_too_many_vanished_images_change_nothing(shop: Shop) -> None:
    keys = shop.put_images(10)
    discover(shop)
    for key in keys[:3]:
        shop.remove(key)
    with pytest.raises(PermanentError, match=r"3 of 10 .*CATALOG_VANISHED_SHARE_LIMIT"):
        discover(shop)
    assert live_keys(shop) == set(keys)
    assert discover(shop, vanished_share_limit=0.5).vanished == 3
    assert len(live_keys(shop)) == 7


def test_suffixes_and_exclude_patterns_select_images(shop: Shop) -> None:
    for key in ("a.jpg", "B.JPG", "notes.txt", "thumbs/a.jpg", "a.jpg.bak"):
        shop.put(key, make_image(1))
    discover(shop, exclude_patterns=("thumbs/*",))
    assert live_keys(shop) == {"a.jpg", "B.JPG"}


def test_prefixes_do_not_affect_each_other(shop: Shop) -> None:
    for key in ("summer/a.jpg", "summer/b.jpg", "winter/a.jpg", "summer2/c.jpg"):
        shop.put(key, make_image(len(key)))
    discover(shop, prefix="summer/")
    assert live_keys(shop) == {"summer/a.jpg", "summer/b.jpg"}
    assert discover(shop, prefix="winter/").vanished == 0
    assert live_keys(shop) == {"summer/a.jpg", "summer/b.jpg", "winter/a.jpg"}


@pytest.mark.parametrize(
    ("key", "product_id"),
    [
        ("sku123_2.jpg", "sku123"),
        ("shoes/sku-9-1.jpeg", "sku-9"),
        ("plain.png", "plain"),
        ("deep/er/x_1.v2.jpg", "x_1.v2"),
        (".jpg", ".jpg"),
    ],
)
def test_the_product_id_is_read_from_the_key(shop: Shop, key: str, product_id: str) -> None:
    shop.put(key, make_image(1))
    discover(shop)
    assert shop.query("SELECT product_id FROM catalog.images") == [(product_id,)]


def test_the_product_pattern_is_a_setting(shop: Shop) -> None:
    shop.put("4711/front.jpg", make_image(1))
    shop.put("4711/back.jpg", make_image(2))
    discover(shop, product_id_pattern=r"^(?P<product_id>\d+)/")
    assert shop.query("SELECT DISTINCT product_id FROM catalog.images") == [("4711",)]


def test_texts_come_from_the_products_file(shop: Shop) -> None:
    shop.put("sku1_1.jpg", make_image(1))
    shop.put("sku1_2.jpg", make_image(2))
    lines = (
        "image,description,display name,category",
        '"sku1_1.jpg","A ""red"" dress, long",Dress Été,dress',
        "sku1_2.jpg,another,name,dress",
        "unknown.jpg,x,y,z",
    )
    shop.put("products.csv", "\ufeff".encode() + "\r\n".join(lines).encode())
    discover(shop)
    rows = shop.query("SELECT product_id, display_name, description, shop_category FROM catalog.products")
    assert rows == [("sku1", "Dress Été", 'A "red" dress, long', "dress")]


def test_a_missing_column_keeps_the_stored_texts(shop: Shop) -> None:
    shop.put("sku1_1.jpg", make_image(1))
    for content in (b"image,description,name\nsku1_1.jpg,red,Dress\n", b"image,name\nsku1_1.jpg,Gown\n"):
        shop.put("products.csv", content)
        discover(shop)
    assert shop.query("SELECT display_name, description FROM catalog.products") == [("Gown", "red")]


def test_a_products_file_without_an_image_column_is_ignored(shop: Shop) -> None:
    shop.put("sku1_1.jpg", make_image(1))
    shop.put("products.csv", b"name,description\nDress,red\n")
    discover(shop)
    assert shop.query("SELECT product_id, display_name FROM catalog.products") == [("sku1", None)]


def read_products(shop: Shop, content: bytes | str) -> list[ProductText]:
    shop.put("products.csv", content.encode() if isinstance(content, str) else content)
    return read_product_texts(shop.connections.store, shop.connections.source / "products.csv", lambda image: image)


def test_a_bad_row_does_not_affect_others(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    lines = [
        HEADER.encode(),
        b"1.jpg,one,One,hat",
        b"2.jpg," + b"x" * 200_000 + b",Two,hat",
        "3.jpg,drei,Grün,hat".encode("latin-1"),
        b"4.jpg,four,Four",
        b'5.jpg,five,Five,"hat',
        b'6.jpg,"six, and more\nof it",Six,hat',
        b"7.jpg,se\0ven,Seven,hat",
        b'8.jpg,eight,Eight,"hat',
    ]
    products = read_products(shop, b"\n".join(lines))
    assert [(product.product_id, product.description) for product in products] == [
        ("1.jpg", "one"),
        ("6.jpg", "six, and more\nof it"),
        ("7.jpg", "seven"),
    ]
    assert "5 rows of the products file" in caplog.text
    for line in (3, 4, 5, 6, 10):
        assert f"line {line}: " in caplog.text


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n"])
@pytest.mark.parametrize("header", [HEADER, " Image ,DESCRIPTION,Display Name,Category", "Path,Text,Title,Label"])
def test_header_case_synonyms_and_line_ends_do_not_matter(shop: Shop, header: str, end: str) -> None:
    products = read_products(shop, f"\ufeff{header}{end}1.jpg,one,One,hat{end}")
    assert products == [ProductText("1.jpg", "One", "one", "hat")]


def test_only_the_image_column_is_required(shop: Shop) -> None:
    assert read_products(shop, "name,image\nOne,1.jpg\n") == [ProductText("1.jpg", "One", None, None)]


@pytest.mark.parametrize("content", ["name,description\nOne,one\n", "", "<!DOCTYPE html>\n<p>Sign in"])
def test_a_file_without_an_image_column_is_logged(shop: Shop, content: str, caplog: pytest.LogCaptureFixture) -> None:
    assert read_products(shop, content) == []
    assert "products.csv has no column image and is ignored" in caplog.text
