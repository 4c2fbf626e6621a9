from pathlib import Path

import pytest

from jobs.errors import PermanentError
from jobs.retrain.labels.formats import READERS, read_rows


def test_an_unknown_format_is_told_those_that_exist(tmp_path: Path) -> None:
    with pytest.raises(PermanentError, match="no format 'coco'") as caught:
        read_rows("coco", tmp_path)
    assert all(name in str(caught.value) for name in READERS)


@pytest.mark.parametrize("name", READERS)
def test_a_source_that_is_not_there_is_told(tmp_path: Path, name: str) -> None:
    with pytest.raises(PermanentError, match="does not exist"):
        read_rows(name, tmp_path / "nowhere")


@pytest.mark.parametrize("name", READERS)
def test_a_source_of_another_format_is_told_what_is_expected(tmp_path: Path, name: str) -> None:
    (tmp_path / "note.csv").write_text("hello\n")
    with pytest.raises(PermanentError, match="expects"):
        list(read_rows(name, tmp_path / "note.csv"))
