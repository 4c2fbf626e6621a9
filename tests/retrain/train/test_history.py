import json
from pathlib import Path

import pytest
from PIL import Image

from jobs.retrain.train.history import (
    HISTORY_FILE,
    PICTURE_FILE,
    EpochRecord,
    is_patience_exhausted,
    write_history,
)

HISTORY = (
    EpochRecord(1, 1e-3, train_loss=2.1, validation_loss=1.9, validation_accuracy=0.4),
    EpochRecord(2, 5e-4, train_loss=1.2, validation_loss=1.1, validation_accuracy=0.7),
)


def test_numbers_and_chart_are_written(tmp_path: Path) -> None:
    write_history(tmp_path, HISTORY)
    first, _ = json.loads((tmp_path / HISTORY_FILE).read_text())
    assert first == {
        "epoch": 1,
        "learning_rate": 1e-3,
        "train_loss": 2.1,
        "validation_loss": 1.9,
        "validation_accuracy": 0.4,
    }
    with Image.open(tmp_path / PICTURE_FILE) as picture:
        assert picture.width > 2 * picture.height > 600
        assert len(picture.convert("RGB").getcolors(1 << 20) or ()) > 20


def test_the_same_history_gives_the_same_files(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        write_history(tmp_path / name, HISTORY)
    for file in (HISTORY_FILE, PICTURE_FILE):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "other" / file).read_bytes()


def test_a_history_without_epochs_has_no_chart(tmp_path: Path) -> None:
    write_history(tmp_path, ())
    assert json.loads((tmp_path / HISTORY_FILE).read_text()) == []
    assert not (tmp_path / PICTURE_FILE).exists()


@pytest.mark.parametrize(
    ("losses", "is_exhausted"),
    [
        ([], False),
        ([1.0, 2.0], False),
        ([1.0, 2.0, 3.0], True),
        ([1.0, 1.0, 1.0], True),
        ([3.0, 2.0, 1.0], False),
        ([1.0, 2.0, 0.9], False),
        ([2.0, 1.0, 1.5, 1.2], True),
    ],
)
def test_patience_of_two_epochs(losses: list[float], is_exhausted: bool) -> None:
    history = [EpochRecord(number + 1, 0.1, 1.0, loss, 0.5) for number, loss in enumerate(losses)]
    assert is_patience_exhausted(history, 2) is is_exhausted
