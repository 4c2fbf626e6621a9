from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fixtures.shop import make_photo
from jobs.errors import PermanentError
from jobs.retrain.labels.deepfashion import read_deepfashion
from jobs.retrain.labels.label_row import BadRow, LabelRow, RowFault


def make_rows(count: int, first: int = 0) -> dict[str, list[Any]]:
    """Columns as the public set has them."""
    photos = [{"bytes": make_photo(first + number), "path": "02_1_front.jpg"} for number in range(count)]
    return {
        "images": photos,
        "gender": ["WOMEN"] * count,
        "pose": ["front"] * count,
        "cloth_type": ["Dresses"] * count,
        "pid": [f"id_{(first + number) // 2:08d}" for number in range(count)],
        "caption": ["a long dress"] * count,
        "mask": photos,
        "mask_overlay": photos,
    }


def write(path: Path, columns: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


def test_photos_labels_captions_and_products_of_several_files(tmp_path: Path) -> None:
    write(tmp_path / "data" / "train-00001-of-00002.parquet", make_rows(1, first=2))
    write(tmp_path / "data" / "train-00000-of-00002.parquet", make_rows(2))
    names = [
        "data/train-00000-of-00002.parquet/1",
        "data/train-00000-of-00002.parquet/2",
        "data/train-00001-of-00002.parquet/1",
    ]
    assert list(read_deepfashion(tmp_path)) == [
        LabelRow(line, name, make_photo(line - 1), "Dresses", "", "a long dress", f"id_0000000{(line - 1) // 2}")
        for line, name in enumerate(names, start=1)
    ]


@pytest.mark.parametrize("name", ["images", "image", "cloth"])
@pytest.mark.parametrize("as_struct", [True, False])
def test_readers_disagree_on_the_photos_column(tmp_path: Path, name: str, as_struct: bool) -> None:
    path = tmp_path / "train.parquet"
    write(path, {name: [{"bytes": b"photo"} if as_struct else b"photo"], "cloth_type": ["Denim"], "mask": [b"mask"]})
    (row,) = read_deepfashion(path)
    assert row == LabelRow(1, "train.parquet/1", b"photo", "Denim", "", "", "train.parquet/1")


def test_only_an_empty_label_or_photo_is_a_bad_row(tmp_path: Path) -> None:
    columns = make_rows(4)
    columns["cloth_type"] = ["", None, "A_Word_Of_Our_Own", "Denim"]
    columns["images"][3] = {"bytes": None, "path": "elsewhere.jpg"}
    columns["caption"][2] = None
    write(tmp_path / "train.parquet", columns)
    rows = list(read_deepfashion(tmp_path))
    assert [(row.line, row.source_key, row.reason) for row in rows if isinstance(row, BadRow)] == [
        (1, "train.parquet/1", RowFault.NO_LABEL),
        (2, "train.parquet/2", RowFault.NO_LABEL),
        (4, "train.parquet/4", RowFault.NO_IMAGE),
    ]
    assert [(row.category, row.description) for row in rows if isinstance(row, LabelRow)] == [("A_Word_Of_Our_Own", "")]


def test_a_caption_that_is_no_utf_8_is_a_bad_row(tmp_path: Path) -> None:
    columns: dict[str, Any] = make_rows(2)
    broken = pa.array([b"Caf\xe9", b"fine"]).view(pa.string())
    write(tmp_path / "train.parquet", columns | {"caption": broken})
    first, second = read_deepfashion(tmp_path)
    assert isinstance(first, BadRow)
    assert (first.line, first.reason) == (1, RowFault.NOT_UTF8)
    assert isinstance(second, LabelRow)


def test_products_may_be_numbers(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", make_rows(1) | {"pid": [17]})
    (row,) = read_deepfashion(tmp_path)
    assert isinstance(row, LabelRow)
    assert row.group_name == "17"


def test_rows_come_before_what_is_broken_behind_them(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", make_rows(2))
    (tmp_path / "b.parquet").write_bytes(b"PAR1, or rather not")
    rows = read_deepfashion(tmp_path)
    assert [next(rows).line, next(rows).line] == [1, 2]
    with pytest.raises(PermanentError, match=r"b\.parquet cannot be read as Parquet"):
        next(rows)


def test_a_file_of_one_row_group_is_not_read_at_once(tmp_path: Path) -> None:
    photos = [bytes(np.random.default_rng(number).bytes(10_000)) for number in range(4000)]
    pq.write_table(pa.table({"image": photos, "cloth_type": ["Denim"] * 4000}), tmp_path / "a.parquet")
    before = pa.total_allocated_bytes()
    rows = read_deepfashion(tmp_path)
    next(rows)
    assert pa.total_allocated_bytes() - before < 25_000_000
    assert len(list(rows)) == 3999


def test_a_file_that_ends_halfway_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", make_rows(20))
    content = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(content[: len(content) // 2])
    with pytest.raises(PermanentError, match=r"a\.parquet cannot be read as Parquet"):
        list(read_deepfashion(tmp_path))


@pytest.mark.parametrize("columns", [{"image": [b"photo"]}, {"cloth_type": ["Denim"], "mask": [b"mask"]}])
def test_other_columns_are_refused_by_name(tmp_path: Path, columns: dict[str, Any]) -> None:
    write(tmp_path / "a.parquet", columns)
    with pytest.raises(PermanentError, match=f"has the columns {', '.join(columns)}: deepfashion expects cloth_type"):
        list(read_deepfashion(tmp_path))


def test_a_folder_with_neither_layout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PermanentError, match=r"no Parquet file and no list_eval_partition\.txt"):
        next(read_deepfashion(tmp_path))
