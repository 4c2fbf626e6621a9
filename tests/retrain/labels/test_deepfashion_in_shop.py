from pathlib import Path

import pytest

from jobs.errors import PermanentError
from jobs.retrain.labels.deepfashion import read_deepfashion, read_in_shop
from jobs.retrain.labels.label_row import BadRow, LabelRow, RowFault

NAMES = [
    "img/WOMEN/Blouses_Shirts/id_00000001/02_1_front.jpg",
    "img/WOMEN/Blouses_Shirts/id_00000001/02_2_side.jpg",
    "img/MEN/Denim/id_00000080/01_7_additional.jpg",
]
HEADER = "image_name                    item_id evaluation_status"
GOOD = [f"{name}    {name.split('/')[3]} train" for name in NAMES]


def write_list(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*lines, ""]), encoding="latin-1")


def test_the_label_is_a_folder_and_the_group_an_item(tmp_path: Path) -> None:
    write_list(tmp_path / "list_eval_partition.txt", "3", HEADER, *GOOD)
    assert list(read_in_shop(tmp_path)) == [
        LabelRow(3, NAMES[0], tmp_path / NAMES[0], "Blouses_Shirts", "", "", "id_00000001"),
        LabelRow(4, NAMES[1], tmp_path / NAMES[1], "Blouses_Shirts", "", "", "id_00000001"),
        LabelRow(5, NAMES[2], tmp_path / NAMES[2], "Denim", "", "", "id_00000080"),
    ]


def test_deepfashion_reads_the_tree_too(tmp_path: Path) -> None:
    write_list(tmp_path / "list_eval_partition.txt", "3", HEADER, *GOOD)
    assert list(read_deepfashion(tmp_path)) == list(read_in_shop(tmp_path)) != []


@pytest.mark.parametrize(
    ("list_folder", "photo_folder"), [("", ""), ("Eval", ""), ("Eval", "Img"), ("Anno", "Img"), ("", "Img")]
)
def test_the_list_and_the_photos_may_lie_as_they_were_packed(
    tmp_path: Path, list_folder: str, photo_folder: str
) -> None:
    write_list(tmp_path / list_folder / "list_eval_partition.txt", "1", HEADER, GOOD[0])
    photo = tmp_path / photo_folder / NAMES[0]
    photo.parent.mkdir(parents=True)
    photo.write_bytes(b"photo")
    (row,) = read_in_shop(tmp_path)
    assert isinstance(row, LabelRow)
    assert isinstance(row.photo, Path)
    assert row.photo.read_bytes() == b"photo"


def test_malformed_lines_are_named_and_a_wrong_count_is_told(tmp_path: Path) -> None:
    write_list(
        tmp_path / "list_eval_partition.txt",
        "7",
        HEADER,
        GOOD[0],
        NAMES[1],
        "img/WOMEN/02.jpg id_00000001 train",
        "img/WOMEN/Denim/id_2/02.jpg id_1 query",
        "../img/WOMEN/Denim/id_2/02.jpg id_2 query",
        "img/WOMEN/D\xe9nim/id_2/02.jpg id_2 query",
    )
    rows = list(read_in_shop(tmp_path))
    assert isinstance(rows[0], LabelRow)
    assert [(row.line, row.reason) for row in rows if isinstance(row, BadRow)] == [
        (4, RowFault.FIELD_COUNT),
        (5, RowFault.MALFORMED),
        (6, RowFault.MALFORMED),
        (7, RowFault.OUTSIDE),
        (8, RowFault.NOT_UTF8),
        (1, RowFault.WRONG_COUNT),
    ]
    assert isinstance(rows[-1], BadRow)
    assert rows[-1].detail == "says '7' photos, but 6 are listed"


@pytest.mark.parametrize("lines", [[], ["3"], [HEADER, GOOD[0]], GOOD])
def test_a_list_that_starts_otherwise_is_refused(tmp_path: Path, lines: list[str]) -> None:
    write_list(tmp_path / "list_eval_partition.txt", *lines)
    with pytest.raises(PermanentError, match="must start with a line of the count"):
        next(read_in_shop(tmp_path))


def test_a_folder_without_a_list_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PermanentError, match=r"holds no list_eval_partition\.txt"):
        next(read_in_shop(tmp_path))
