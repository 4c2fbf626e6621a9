from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from jobs.errors import PermanentError
from jobs.retrain.labels.csv_formats import read_csv_table, read_fashion_products
from jobs.retrain.labels.label_row import LabelRow, SkippedRow, SkipReason

STYLES_HEADER = "id,gender,masterCategory,subCategory,articleType,baseColour,season,year,usage,productDisplayName"
SHIRT = "15970,Men,Apparel,Topwear,Shirts,Navy Blue,Fall,2011,Casual,Turtle Check Men Navy Blue Shirt"


def read_table(folder: Path, content: bytes | str) -> list[LabelRow | SkippedRow]:
    (folder / "labels.csv").write_bytes(content.encode() if isinstance(content, str) else content)
    return list(read_csv_table(folder))


def list_skipped(rows: list[LabelRow | SkippedRow]) -> list[tuple[int, str, SkipReason]]:
    return [(row.line, row.source_key, row.reason) for row in rows if isinstance(row, SkippedRow)]  # type: ignore[misc]


def test_reads_images_labels_texts_and_groups(tmp_path: Path) -> None:
    rows = read_table(tmp_path, 'image,label,text,group\nhat/1.jpg,hat,"A red hat, plain",sku1\n2.jpg,hat,,\n')
    assert rows == [
        LabelRow(2, "hat/1.jpg", tmp_path / "hat" / "1.jpg", "hat", "", "A red hat, plain", "sku1"),
        LabelRow(3, "2.jpg", tmp_path / "2.jpg", "hat", "", "", "2.jpg"),
    ]


def test_accepts_alternative_column_names_in_any_order(tmp_path: Path) -> None:
    rows = read_table(tmp_path, "split,Label,title,description,contributor, path\ntrain,hat,Hat,A hat,c1,1.jpg\n")
    assert rows == [LabelRow(2, "1.jpg", tmp_path / "1.jpg", "hat", "Hat", "A hat", "c1")]


def test_accepts_byte_order_mark_crlf_and_blank_lines(tmp_path: Path) -> None:
    assert read_table(tmp_path, "\ufeffimage,label\r\n\r\nä.jpg, Hüte \r\n") == [
        LabelRow(3, "ä.jpg", tmp_path / "ä.jpg", "Hüte", "", "", "ä.jpg")
    ]


def test_quoted_texts_may_span_lines_without_shifting_line_numbers(tmp_path: Path) -> None:
    rows = read_table(tmp_path, 'image,label,text\n1.jpg,hat,"a ""hat"",\nred"\n2.jpg,,\n')
    assert isinstance(rows[0], LabelRow)
    assert rows[0].description == 'a "hat",\nred'
    assert list_skipped(rows) == [(4, "2.jpg", SkipReason.NO_LABEL)]


def test_skips_only_bad_rows_and_reports_their_lines(tmp_path: Path) -> None:
    lines = [
        b"image,label,text",
        b"1.jpg,hat,",
        b"2.jpg, ,",
        b",hat,",
        b"4.jpg,hat",
        b"5.jpg,hat,a,b",
        "6.jpg,Hüte,".encode("latin-1"),
        b"../7.jpg,hat,",
        b"/etc/8.jpg,hat,",
        b"9.jpg,hat," + b"x" * 200_000,
        b"a" * 2000 + b".jpg,hat,",
        b"11.jpg,hat,\0NUL",
    ]
    rows = read_table(tmp_path, b"\n".join(lines))
    assert list_skipped(rows) == [
        (3, "2.jpg", SkipReason.NO_LABEL),
        (4, "", SkipReason.NO_IMAGE),
        (5, "", SkipReason.FIELD_COUNT),
        (6, "", SkipReason.FIELD_COUNT),
        (7, "6.jpg", SkipReason.NOT_UTF8),
        (8, "../7.jpg", SkipReason.OUTSIDE),
        (9, "/etc/8.jpg", SkipReason.OUTSIDE),
        (10, "", SkipReason.MALFORMED),
        (11, "a" * 1024, SkipReason.MALFORMED),
    ]
    good = [row for row in rows if isinstance(row, LabelRow)]
    assert [(row.line, row.description) for row in good] == [(2, ""), (12, "NUL")]


def test_unclosed_quote_skips_only_its_line(tmp_path: Path) -> None:
    bad, good = read_table(tmp_path, 'image,label\n"1.jpg,hat\n2.jpg,hat\n')
    assert isinstance(bad, SkippedRow)
    assert (bad.line, bad.reason) == (2, SkipReason.MALFORMED)
    assert "lines 2 to 3: is a quote not closed?" in bad.detail
    assert good == LabelRow(3, "2.jpg", tmp_path / "2.jpg", "hat", "", "", "2.jpg")


def test_unclosed_quote_in_last_column_skips_only_its_line(tmp_path: Path) -> None:
    rows = read_table(tmp_path, 'image,label,text\n1.jpg,hat,"a hat\n2.jpg,hat,"a ""red"" hat"\n3.jpg,hat,\n')
    assert list_skipped(rows) == [(2, "", SkipReason.MALFORMED)]
    assert [row.source_key for row in rows if isinstance(row, LabelRow)] == ["2.jpg", "3.jpg"]
    rows = read_table(tmp_path, 'image,label,text\n1.jpg,hat,"a hat\n2.jpg,hat,plain\n')
    assert list_skipped(rows) == [(2, "", SkipReason.MALFORMED)]
    assert [row.source_key for row in rows if isinstance(row, LabelRow)] == ["2.jpg"]


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n"])
def test_accepts_any_line_ending(tmp_path: Path, end: str) -> None:
    rows = read_table(tmp_path, end.join(["image,label", "1.jpg,hat", "2.jpg,hat", ""]))
    assert [row.source_key for row in rows] == ["1.jpg", "2.jpg"]


@pytest.mark.parametrize(
    "content",
    [b"image,category\n1.jpg,hat\n", b"", "image,label\n1.jpg,hat\n".encode("utf-16"), b"image;label\n1.jpg;hat\n"],
)
def test_rejects_table_without_required_columns(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(PermanentError, match=r"labels\.csv does not have the columns image and label"):
        read_table(tmp_path, content)


def test_source_is_a_file_or_a_folder_with_one_csv_file(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("image,label\n1.jpg,hat\n")
    assert list(read_csv_table(tmp_path)) == list(read_csv_table(tmp_path / "mine.csv")) != []
    (tmp_path / "other.csv").touch()
    with pytest.raises(PermanentError, match="holds 2 CSV files"):
        next(read_csv_table(tmp_path))


def test_reads_rows_lazily(tmp_path: Path) -> None:
    with (tmp_path / "labels.csv").open("w") as file:
        file.write("image,label\n")
        file.writelines(f"{number}.jpg,hat\n" for number in range(100_000))
    rows = read_csv_table(tmp_path)
    assert isinstance(rows, Iterator)
    assert len(list(islice(rows, 10))) == 10
    # Rows that have not been requested are not in memory.
    (tmp_path / "labels.csv").write_text("")
    assert len(list(rows)) < 50_000


def read_styles(folder: Path, *lines: str) -> list[LabelRow | SkippedRow]:
    (folder / "styles.csv").write_text("\n".join([STYLES_HEADER, *lines, ""]))
    return list(read_fashion_products(folder))


def test_kaggle_ids_map_to_files_in_images_folder(tmp_path: Path) -> None:
    assert read_styles(tmp_path, SHIRT) == [
        LabelRow(
            2,
            "images/15970.jpg",
            tmp_path / "images" / "15970.jpg",
            "Shirts",
            "Turtle Check Men Navy Blue Shirt",
            "",
            "15970",
        )
    ]


def test_unquoted_commas_become_part_of_the_name(tmp_path: Path) -> None:
    (row,) = read_styles(tmp_path, "6044,Men,Apparel,Topwear,Tshirts,Grey,Fall,2010,Casual,Nike Tee, Grey,XL")
    assert isinstance(row, LabelRow)
    assert (row.title, row.category, row.group_name) == ("Nike Tee, Grey,XL", "Tshirts", "6044")


def test_accepts_missing_year_and_quoted_name(tmp_path: Path) -> None:
    (row,) = read_styles(tmp_path, '1,Men,Apparel,Topwear,Tshirts,Grey,,,Casual,"Tee, ""Grey"""')
    assert isinstance(row, LabelRow)
    assert row.title == 'Tee, "Grey"'


def test_skips_bad_kaggle_rows_and_reports_their_lines(tmp_path: Path) -> None:
    rows = read_styles(
        tmp_path,
        "1,Men,Apparel,Topwear,Tshirts,Grey,Fall,2010,Casual",
        SHIRT,
        "2,Men,Apparel,Topwear,Tshirts,Grey, light,Fall,2010,Casual,A comma before the year",
        "x,Men,Apparel,Topwear,Tshirts,Grey,Fall,2010,Casual,No number",
        "4,Men,Apparel,Topwear,,Grey,Fall,2010,Casual,No type",
        ",Men,Apparel,Topwear,Tshirts,Grey,Fall,2010,Casual,No id",
    )
    assert [(row.line, row.source_key, row.reason) for row in rows if isinstance(row, SkippedRow)] == [
        (2, "", SkipReason.FIELD_COUNT),
        (4, "", SkipReason.FIELD_COUNT),
        (5, "", SkipReason.MALFORMED),
        (6, "images/4.jpg", SkipReason.NO_LABEL),
        (7, "", SkipReason.NO_IMAGE),
    ]
    assert [row.line for row in rows if isinstance(row, LabelRow)] == [3]


@pytest.mark.parametrize("image_folder", ["", "images", "data"])
def test_caption_layout_finds_images_in_known_folders(tmp_path: Path, image_folder: str) -> None:
    image = tmp_path / image_folder / "31973.jpg"
    image.parent.mkdir(exist_ok=True)
    image.touch()
    (tmp_path / "data.csv").write_text(
        'image,description,display name,category\n31973.jpg,"A wallet, brown",Baggit Wallet,Wallets\n'
    )
    # A group of None means that the product is derived from the key later.
    assert list(read_fashion_products(tmp_path)) == [
        LabelRow(2, "31973.jpg", image, "Wallets", "Baggit Wallet", "A wallet, brown", None)
    ]


def test_skips_bad_rows_of_caption_layout(tmp_path: Path) -> None:
    (tmp_path / "any.csv").write_text(
        "image,description,display name,category\n1.jpg,a,b\n2.jpg,a, b,c,d\n../3.jpg,a,b,c\n4.jpg,a,b,\n,a,b,c\n"
    )
    rows = list(read_fashion_products(tmp_path))
    assert [(row.line, row.source_key, row.reason) for row in rows if isinstance(row, SkippedRow)] == [
        (2, "", SkipReason.FIELD_COUNT),
        (3, "", SkipReason.FIELD_COUNT),
        (4, "../3.jpg", SkipReason.OUTSIDE),
        (5, "4.jpg", SkipReason.NO_LABEL),
        (6, "", SkipReason.NO_IMAGE),
    ]


def test_fashion_products_rejects_other_columns(tmp_path: Path) -> None:
    (tmp_path / "styles.csv").write_text("id,name\n1,hat\n")
    with pytest.raises(PermanentError, match=r"styles\.csv is neither Kaggle's"):
        next(read_fashion_products(tmp_path))


def test_fashion_products_rejects_folder_without_csv_file(tmp_path: Path) -> None:
    with pytest.raises(PermanentError, match="holds no CSV file"):
        next(read_fashion_products(tmp_path))
