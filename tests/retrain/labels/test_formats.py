import os
from pathlib import Path

import pytest

from jobs.errors import PermanentError
from jobs.retrain.labels.formats import READERS, read_folders, read_rows
from jobs.retrain.labels.label_row import LabelRow, SkippedRow, SkipReason


def test_unknown_format_lists_known_formats(tmp_path: Path) -> None:
    with pytest.raises(PermanentError, match="unknown format 'coco'") as caught:
        read_rows("coco", tmp_path)
    assert all(name in str(caught.value) for name in READERS)


@pytest.mark.parametrize("name", READERS)
def test_rejects_missing_source(tmp_path: Path, name: str) -> None:
    with pytest.raises(PermanentError, match="does not exist"):
        read_rows(name, tmp_path / "nowhere")


@pytest.mark.parametrize("name", READERS)
def test_source_of_another_format_names_expected_format(tmp_path: Path, name: str) -> None:
    (tmp_path / "note.csv").write_text("hello\n")
    with pytest.raises(PermanentError, match="expects"):
        list(read_rows(name, tmp_path / "note.csv"))


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_folder_is_label_and_image_is_its_own_group(tmp_path: Path) -> None:
    touch(tmp_path, "hat/2.jpg", "hat/1.PNG", "dress/summer/1.webp")
    assert list(read_folders(tmp_path)) == [
        LabelRow(1, "dress/summer/1.webp", tmp_path / "dress/summer/1.webp", "dress", "", "", "dress/summer/1.webp"),
        LabelRow(2, "hat/1.PNG", tmp_path / "hat/1.PNG", "hat", "", "", "hat/1.PNG"),
        LabelRow(3, "hat/2.jpg", tmp_path / "hat/2.jpg", "hat", "", "", "hat/2.jpg"),
    ]


def test_skips_files_outside_folders_and_ignores_hidden_files(tmp_path: Path) -> None:
    touch(tmp_path, "loose.jpg", "hat/1.jpg", "hat/.DS_Store", ".cache/1.jpg")
    touch(tmp_path, "@eaDir/1.jpg", "hat/@eaDir/1.jpg/SYNOPHOTO_THUMB_M.jpg", "__MACOSX/hat/1.jpg", "lost+found/1.jpg")
    first, second = read_folders(tmp_path)
    assert isinstance(first, SkippedRow)
    assert (first.source_key, first.reason) == ("loose.jpg", SkipReason.NO_LABEL)
    assert isinstance(second, LabelRow)


def test_skips_file_name_that_is_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "hat").mkdir()
    Path(os.fsdecode(os.fsencode(tmp_path / "hat") + b"/\xff.jpg")).touch()
    (row,) = read_folders(tmp_path)
    assert isinstance(row, SkippedRow)
    assert (row.source_key, row.reason) == ("hat/�.jpg", SkipReason.NOT_UTF8)


def test_folders_rejects_a_file(tmp_path: Path) -> None:
    touch(tmp_path, "labels.csv")
    with pytest.raises(PermanentError, match="one subfolder for each label"):
        next(read_folders(tmp_path / "labels.csv"))
