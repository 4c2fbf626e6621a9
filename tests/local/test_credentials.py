from pathlib import Path

import pytest

from jobs.errors import PermanentError
from jobs.local.credentials import load_credentials, read_credentials


def test_secrets_are_made_once_and_are_nobody_elses(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first = load_credentials(tmp_path / "a")

    assert load_credentials(tmp_path / "a") == first
    assert load_credentials(tmp_path / "b") != first
    assert (tmp_path / "a" / "secrets.json").stat().st_mode & 0o777 == 0o600
    assert first.airflow_password not in repr(first)


def test_there_are_none_before_the_first_start(tmp_path: Path) -> None:
    assert read_credentials(tmp_path) is None


def test_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "secrets.json").write_text("{}")

    with pytest.raises(PermanentError, match=r"secrets\.json is damaged"):
        load_credentials(tmp_path)
