from pathlib import Path

import pytest

from jobs.retrain.train.epochs import choose_epochs, count_epochs
from jobs.retrain.train.requests import Hyperparameters

FIXED = Hyperparameters(epochs=15, batch_size=8, learning_rate=1e-3)


@pytest.mark.parametrize(("seconds", "epochs"), [(60, 9), (53, 10), (1, 15), (539, 1), (541, 1), (1e6, 1)])
def test_as_many_epochs_as_fit_into_nine_tenths_of_the_budget(seconds: float, epochs: int) -> None:
    assert count_epochs(seconds, budget_minutes=10, max_epochs=15) == epochs


def test_without_a_budget_nothing_is_measured(tmp_path: Path) -> None:
    def fail() -> float:
        raise AssertionError

    assert choose_epochs(tmp_path / "folder", FIXED, fail) == 15
    assert not (tmp_path / "folder").exists()
