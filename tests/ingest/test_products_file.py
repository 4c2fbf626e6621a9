import pytest

from fixtures.shop import Shop
from jobs.database.images import ProductText
from jobs.ingest.discover import read_product_texts

HEADER = "image,description,display name,category"


def read(shop: Shop, content: bytes | str) -> list[ProductText]:
    shop.put("products.csv", content.encode() if isinstance(content, str) else content)
    return read_product_texts(shop.connections.store, shop.connections.source / "products.csv", lambda image: image)


def test_a_bad_row_spoils_itself_alone(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
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
    products = read(shop, b"\n".join(lines))
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
def test_headers_and_line_ends_are_matched_loosely(shop: Shop, header: str, end: str) -> None:
    assert read(shop, f"\ufeff{header}{end}1.jpg,one,One,hat{end}") == [ProductText("1.jpg", "One", "one", "hat")]


def test_all_columns_but_that_of_the_image_may_be_missing(shop: Shop) -> None:
    assert read(shop, "name,image\nOne,1.jpg\n") == [ProductText("1.jpg", "One", None, None)]


@pytest.mark.parametrize("content", ["name,description\nOne,one\n", "", "<!DOCTYPE html>\n<p>Sign in"])
def test_a_file_that_names_no_images_is_named(shop: Shop, content: str, caplog: pytest.LogCaptureFixture) -> None:
    assert read(shop, content) == []
    assert "products.csv has no column image and is ignored" in caplog.text
