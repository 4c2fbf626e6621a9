from pathlib import Path

import pytest

from jobs.errors import PermanentError
from jobs.retrain.labels.fashion_products import read_fashion_products
from jobs.retrain.labels.label_row import BadRow, LabelRow, RowFault

STYLES_HEADER = "id,gender,masterCategory,subCategory,articleType,baseColour,season,year,usage,productDisplayName"
SHIRT = "15970,Men,Apparel,Topwear,Shirts,Navy Blue,Fall,2011,Casual,Turtle Check Men Navy Blue Shirt"


def read_styles(folder: Path, *lines: str) -> list[LabelRow | BadRow]:
    (folder / "styles.csv").write_text("\n".join([STYLES_HEADER, *lines, ""]))
    return list(read_fashion_products(folder))


def test_kaggles_table_names_products_whose_photos_lie_in_images(tmp_path: Path) -> None:
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


def test_stray_commas_belong_to_the_name(tmp_path: Path) -> None:
    (row,) = read_styles(tmp_path, "6044,Men,Apparel,Topwear,Tshirts,Grey,Fall,2010,Casual,Nike Tee, Grey,XL")
    assert isinstance(row, LabelRow)
    assert (row.title, row.category, row.group_name) == ("Nike Tee, Grey,XL", "Tshirts", "6044")


def test_a_year_may_be_missing_and_a_name_quoted(tmp_path: Path) -> None:
    (row,) = read_styles(tmp_path, '1,Men,Apparel,Topwear,Tshirts,Grey,,,Casual,"Tee, ""Grey"""')
    assert isinstance(row, LabelRow)
    assert row.title == 'Tee, "Grey"'


def test_bad_rows_of_kaggles_table_are_named_with_their_line(tmp_path: Path) -> None:
    rows = read_styles(
        tmp_path,
        "1,Men,Apparel,Topwear,Tshirts,Grey,Fall,2010,Casual",
        SHIRT,
        "2,Men,Apparel,Topwear,Tshirts,Grey, light,Fall,2010,Casual,A comma before the year",
        "x,Men,Apparel,Topwear,Tshirts,Grey,Fall,2010,Casual,No number",
        "4,Men,Apparel,Topwear,,Grey,Fall,2010,Casual,No type",
        ",Men,Apparel,Topwear,Tshirts,Grey,Fall,2010,Casual,No id",
    )
    assert [(row.line, row.source_key, row.reason) for row in rows if isinstance(row, BadRow)] == [
        (2, "", RowFault.FIELD_COUNT),
        (4, "", RowFault.FIELD_COUNT),
        (5, "", RowFault.MALFORMED),
        (6, "images/4.jpg", RowFault.NO_LABEL),
        (7, "", RowFault.NO_IMAGE),
    ]
    assert [row.line for row in rows if isinstance(row, LabelRow)] == [3]


@pytest.mark.parametrize("photo_folder", ["", "images", "data"])
def test_the_layout_with_captions_names_files(tmp_path: Path, photo_folder: str) -> None:
    photo = tmp_path / photo_folder / "31973.jpg"
    photo.parent.mkdir(exist_ok=True)
    photo.touch()
    (tmp_path / "data.csv").write_text(
        'image,description,display name,category\n31973.jpg,"A wallet, brown",Baggit Wallet,Wallets\n'
    )
    # The group is the product, which is read from the key later.
    assert list(read_fashion_products(tmp_path)) == [
        LabelRow(2, "31973.jpg", photo, "Wallets", "Baggit Wallet", "A wallet, brown", None)
    ]


def test_bad_rows_of_the_layout_with_captions(tmp_path: Path) -> None:
    (tmp_path / "any.csv").write_text(
        "image,description,display name,category\n1.jpg,a,b\n2.jpg,a, b,c,d\n../3.jpg,a,b,c\n4.jpg,a,b,\n,a,b,c\n"
    )
    rows = list(read_fashion_products(tmp_path))
    assert [(row.line, row.source_key, row.reason) for row in rows if isinstance(row, BadRow)] == [
        (2, "", RowFault.FIELD_COUNT),
        (3, "", RowFault.FIELD_COUNT),
        (4, "../3.jpg", RowFault.OUTSIDE),
        (5, "4.jpg", RowFault.NO_LABEL),
        (6, "", RowFault.NO_IMAGE),
    ]


def test_another_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "styles.csv").write_text("id,name\n1,hat\n")
    with pytest.raises(PermanentError, match=r"styles\.csv is neither Kaggle's"):
        next(read_fashion_products(tmp_path))


def test_a_folder_without_a_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PermanentError, match="holds no CSV file"):
        next(read_fashion_products(tmp_path))
