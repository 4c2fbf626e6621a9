import os
from pathlib import Path

import pytest

from jobs.errors import PermanentError
from jobs.retrain.labels.folders import read_folders
from jobs.retrain.labels.label_row import BadRow, LabelRow, RowFault


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_each_folder_is_a_label_and_each_photo_a_group(tmp_path: Path) -> None:
    touch(tmp_path, "hat/2.jpg", "hat/1.PNG", "dress/summer/1.webp")
    assert list(read_folders(tmp_path)) == [
        LabelRow(1, "dress/summer/1.webp", tmp_path / "dress/summer/1.webp", "dress", "", "", "dress/summer/1.webp"),
        LabelRow(2, "hat/1.PNG", tmp_path / "hat/1.PNG", "hat", "", "", "hat/1.PNG"),
        LabelRow(3, "hat/2.jpg", tmp_path / "hat/2.jpg", "hat", "", "", "hat/2.jpg"),
    ]


def test_a_file_in_no_folder_has_no_label_and_hidden_files_are_passed_over(tmp_path: Path) -> None:
    touch(tmp_path, "loose.jpg", "hat/1.jpg", "hat/.DS_Store", ".cache/1.jpg")
    touch(tmp_path, "@eaDir/1.jpg", "hat/@eaDir/1.jpg/SYNOPHOTO_THUMB_M.jpg", "__MACOSX/hat/1.jpg", "lost+found/1.jpg")
    first, second = read_folders(tmp_path)
    assert isinstance(first, BadRow)
    assert (first.source_key, first.reason) == ("loose.jpg", RowFault.NO_LABEL)
    assert isinstance(second, LabelRow)


def test_a_name_that_no_database_can_hold_is_a_bad_row(tmp_path: Path) -> None:
    (tmp_path / "hat").mkdir()
    Path(os.fsdecode(os.fsencode(tmp_path / "hat") + b"/\xff.jpg")).touch()
    (row,) = read_folders(tmp_path)
    assert isinstance(row, BadRow)
    assert (row.source_key, row.reason) == ("hat/�.jpg", RowFault.NOT_UTF8)


def test_a_file_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "labels.csv")
    with pytest.raises(PermanentError, match="a folder for each label"):
        next(read_folders(tmp_path / "labels.csv"))
