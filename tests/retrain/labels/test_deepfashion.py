from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fixtures.shop import make_image
from jobs.errors import PermanentError
from jobs.retrain.labels.deepfashion import read_deepfashion, read_in_shop
from jobs.retrain.labels.label_row import LabelRow, SkippedRow, SkipReason

NAMES = [
    "img/WOMEN/Blouses_Shirts/id_00000001/02_1_front.jpg",
    "img/WOMEN/Blouses_Shirts/id_00000001/02_2_side.jpg",
    "img/MEN/Denim/id_00000080/01_7_additional.jpg",
]
HEADER = "image_name                    item_id evaluation_status"
GOOD = [f"{name}    {name.split('/')[3]} train" for name in NAMES]


def make_rows(count: int, first: int = 0) -> dict[str, list[Any]]:
    """Return the columns of the public data set."""
    images = [{"bytes": make_image(first + number), "path": "02_1_front.jpg"} for number in range(count)]
    return {
        "images": images,
        "gender": ["WOMEN"] * count,
        "pose": ["front"] * count,
        "cloth_type": ["Dresses"] * count,
        "pid": [f"id_{(first + number) // 2:08d}" for number in range(count)],
        "caption": ["a long dress"] * count,
        "mask": images,
        "mask_overlay": images,
    }


def write(path: Path, columns: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


def test_reads_several_parquet_files_in_order(tmp_path: Path) -> None:
    write(tmp_path / "data" / "train-00001-of-00002.parquet", make_rows(1, first=2))
    write(tmp_path / "data" / "train-00000-of-00002.parquet", make_rows(2))
    names = [
        "data/train-00000-of-00002.parquet/1",
        "data/train-00000-of-00002.parquet/2",
        "data/train-00001-of-00002.parquet/1",
    ]
    assert list(read_deepfashion(tmp_path)) == [
        LabelRow(line, name, make_image(line - 1), "Dresses", "", "a long dress", f"id_0000000{(line - 1) // 2}")
        for line, name in enumerate(names, start=1)
    ]


@pytest.mark.parametrize("name", ["images", "image", "cloth"])
@pytest.mark.parametrize("as_struct", [True, False])
def test_accepts_image_columns_of_different_exports(tmp_path: Path, name: str, as_struct: bool) -> None:
    path = tmp_path / "train.parquet"
    write(path, {name: [{"bytes": b"image"} if as_struct else b"image"], "cloth_type": ["Denim"], "mask": [b"mask"]})
    (row,) = read_deepfashion(path)
    assert row == LabelRow(1, "train.parquet/1", b"image", "Denim", "", "", "train.parquet/1")


def test_skips_only_rows_without_label_or_image(tmp_path: Path) -> None:
    columns = make_rows(4)
    columns["cloth_type"] = ["", None, "A_Word_Of_Our_Own", "Denim"]
    columns["images"][3] = {"bytes": None, "path": "elsewhere.jpg"}
    columns["caption"][2] = None
    write(tmp_path / "train.parquet", columns)
    rows = list(read_deepfashion(tmp_path))
    assert [(row.line, row.source_key, row.reason) for row in rows if isinstance(row, SkippedRow)] == [
        (1, "train.parquet/1", SkipReason.NO_LABEL),
        (2, "train.parquet/2", SkipReason.NO_LABEL),
        (4, "train.parquet/4", SkipReason.NO_IMAGE),
    ]
    assert [(row.category, row.description) for row in rows if isinstance(row, LabelRow)] == [("A_Word_Of_Our_Own", "")]


def test_skips_row_with_caption_that_is_not_utf8(tmp_path: Path) -> None:
    columns: dict[str, Any] = make_rows(2)
    broken = pa.array([b"Caf\xe9", b"fine"]).view(pa.string())
    write(tmp_path / "train.parquet", columns | {"caption": broken})
    first, second = read_deepfashion(tmp_path)
    assert isinstance(first, SkippedRow)
    assert (first.line, first.reason) == (1, SkipReason.NOT_UTF8)
    assert isinstance(second, LabelRow)


def test_accepts_numeric_product_ids(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", make_rows(1) | {"pid": [17]})
    (row,) = read_deepfashion(tmp_path)
    assert isinstance(row, LabelRow)
    assert row.group_name == "17"


def test_yields_rows_before_reaching_a_damaged_file(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", make_rows(2))
    (tmp_path / "b.parquet").write_bytes(b"PAR1, but damaged")
    rows = read_deepfashion(tmp_path)
    assert [next(rows).line, next(rows).line] == [1, 2]
    with pytest.raises(PermanentError, match=r"b\.parquet cannot be read as Parquet"):
        next(rows)


def test_reads_a_single_row_group_in_batches(tmp_path: Path) -> None:
    images = [bytes(np.random.default_rng(number).bytes(10_000)) for number in range(4000)]
    pq.write_table(pa.table({"image": images, "cloth_type": ["Denim"] * 4000}), tmp_path / "a.parquet")
    before = pa.total_allocated_bytes()
    rows = read_deepfashion(tmp_path)
    next(rows)
    assert pa.total_allocated_bytes() - before < 25_000_000
    assert len(list(rows)) == 3999


def test_rejects_truncated_file(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", make_rows(20))
    content = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(content[: len(content) // 2])
    with pytest.raises(PermanentError, match=r"a\.parquet cannot be read as Parquet"):
        list(read_deepfashion(tmp_path))


@pytest.mark.parametrize("columns", [{"image": [b"image"]}, {"cloth_type": ["Denim"], "mask": [b"mask"]}])
def test_rejects_other_columns_and_names_them(tmp_path: Path, columns: dict[str, Any]) -> None:
    write(tmp_path / "a.parquet", columns)
    with pytest.raises(PermanentError, match=f"has the columns {', '.join(columns)}. deepfashion expects cloth_type"):
        list(read_deepfashion(tmp_path))


def test_rejects_folder_with_neither_layout(tmp_path: Path) -> None:
    with pytest.raises(PermanentError, match=r"no Parquet file and no list_eval_partition\.txt"):
        next(read_deepfashion(tmp_path))


def write_list(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*lines, ""]), encoding="latin-1")


def test_in_shop_label_is_a_folder_and_group_is_the_item(tmp_path: Path) -> None:
    write_list(tmp_path / "list_eval_partition.txt", "3", HEADER, *GOOD)
    assert list(read_in_shop(tmp_path)) == [
        LabelRow(3, NAMES[0], tmp_path / NAMES[0], "Blouses_Shirts", "", "", "id_00000001"),
        LabelRow(4, NAMES[1], tmp_path / NAMES[1], "Blouses_Shirts", "", "", "id_00000001"),
        LabelRow(5, NAMES[2], tmp_path / NAMES[2], "Denim", "", "", "id_00000080"),
    ]


def test_deepfashion_also_reads_the_in_shop_tree(tmp_path: Path) -> None:
    write_list(tmp_path / "list_eval_partition.txt", "3", HEADER, *GOOD)
    assert list(read_deepfashion(tmp_path)) == list(read_in_shop(tmp_path)) != []


@pytest.mark.parametrize(
    ("list_folder", "image_folder"), [("", ""), ("Eval", ""), ("Eval", "Img"), ("Anno", "Img"), ("", "Img")]
)
def test_in_shop_list_and_images_may_be_in_packed_folders(tmp_path: Path, list_folder: str, image_folder: str) -> None:
    write_list(tmp_path / list_folder / "list_eval_partition.txt", "1", HEADER, GOOD[0])
    image = tmp_path / image_folder / NAMES[0]
    image.parent.mkdir(parents=True)
    image.write_bytes(b"image")
    (row,) = read_in_shop(tmp_path)
    assert isinstance(row, LabelRow)
    assert isinstance(row.image, Path)
    assert row.image.read_bytes() == b"image"


def test_in_shop_skips_bad_lines_and_reports_a_wrong_count(tmp_path: Path) -> None:
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
    assert [(row.line, row.reason) for row in rows if isinstance(row, SkippedRow)] == [
        (4, SkipReason.FIELD_COUNT),
        (5, SkipReason.MALFORMED),
        (6, SkipReason.MALFORMED),
        (7, SkipReason.OUTSIDE),
        (8, SkipReason.NOT_UTF8),
        (1, SkipReason.WRONG_COUNT),
    ]
    assert isinstance(rows[-1], SkippedRow)
    assert rows[-1].detail == "the first line gives a count of '7', but 6 rows follow"


@pytest.mark.parametrize("lines", [[], ["3"], [HEADER, GOOD[0]], GOOD])
def test_in_shop_rejects_list_without_count_and_header(tmp_path: Path, lines: list[str]) -> None:
    write_list(tmp_path / "list_eval_partition.txt", *lines)
    with pytest.raises(PermanentError, match="must start with a line with the count"):
        next(read_in_shop(tmp_path))


def test_in_shop_rejects_folder_without_list(tmp_path: Path) -> None:
    with pytest.raises(PermanentError, match=r"holds no list_eval_partition\.txt"):
        next(read_in_shop(tmp_path))
