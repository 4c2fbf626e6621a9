from pathlib import Path

import pytest

from jobs.errors import PermanentError
from jobs.local.ports import StackPorts
from jobs.local.stack_record import StackRecord, read_record, write_record


def test_what_is_written_is_read(tmp_path: Path) -> None:
    record = StackRecord(StackPorts(1111, 2222, 3333, 4444), {"postgres": 1}, "3.3.2")
    write_record(tmp_path, record)

    assert read_record(tmp_path) == record


def test_a_stack_from_before_the_query_service_gets_its_usual_port(tmp_path: Path) -> None:
    (tmp_path / "stack.json").write_text('{"ports": {"postgres": 1111, "s3": 2222, "airflow": 3333}, "pids": {}}')
    record = read_record(tmp_path)

    assert record
    assert record.ports == StackPorts(1111, 2222, 3333, 8091)


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    (tmp_path / "stack.json").write_text("{}")

    with pytest.raises(PermanentError, match=r"stack\.json is damaged"):
        read_record(tmp_path)
