from pathlib import Path

import pytest

from jobs.errors import PermanentError
from jobs.local.ports import StackPorts
from jobs.local.stack_files import (
    StackRecord,
    load_credentials,
    read_credentials,
    read_record,
    write_private_file,
    write_record,
)


def test_secrets_are_generated_once_and_differ_between_stacks(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first = load_credentials(tmp_path / "a")

    assert load_credentials(tmp_path / "a") == first
    assert load_credentials(tmp_path / "b") != first
    assert (tmp_path / "a" / "secrets.json").stat().st_mode & 0o777 == 0o600
    assert first.airflow_password not in repr(first)


def test_no_secrets_before_the_first_start(tmp_path: Path) -> None:
    assert read_credentials(tmp_path) is None


def test_damaged_secrets_are_reported(tmp_path: Path) -> None:
    (tmp_path / "secrets.json").write_text("{}")

    with pytest.raises(PermanentError, match=r"secrets\.json is damaged"):
        load_credentials(tmp_path)


def test_record_survives_a_round_trip(tmp_path: Path) -> None:
    record = StackRecord(StackPorts(1111, 2222, 3333, 4444), {"postgres": 1}, "3.3.2")
    write_record(tmp_path, record)

    assert read_record(tmp_path) == record


def test_damaged_record_is_reported(tmp_path: Path) -> None:
    (tmp_path / "stack.json").write_text("{}")

    with pytest.raises(PermanentError, match=r"stack\.json is damaged"):
        read_record(tmp_path)


def test_private_file_is_replaced_and_readable_by_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("old and much longer")
    path.chmod(0o644)
    write_private_file(path, "new")

    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["secret"]
