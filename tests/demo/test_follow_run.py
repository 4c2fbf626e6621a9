"""Read the logs of tasks, whether complete, cut short or missing; `tests/end_to_end` follows runs."""

import json
from pathlib import Path

import pytest

from demo.airflow_client import DagRun, TaskInstance
from demo.follow_run import get_log_size, locate_task_log, read_last_error, read_last_lines

RUN = DagRun("model_retrain", "manual__1", "running", None, None)
STARTED = {"event": "::group::Pre Execute", "level": "info"}
LINE = {"event": "14:40:25 INFO 0 rows imported", "level": "info"}
FAILED = {
    "event": "Task failed with exception",
    "level": "error",
    "error_detail": [{"exc_type": "AirflowFailException", "exc_value": "error: too few labels (exit code 78)"}],
}


def write_log(path: Path, *entries: object) -> Path:
    path.write_text("".join(f"{json.dumps(entry)}\n" for entry in entries))
    return path


@pytest.mark.parametrize(("map_index", "folder"), [(-1, "task_id=tag_shard"), (3, "task_id=tag_shard/map_index=3")])
def test_log_path_is_the_one_that_airflow_uses(tmp_path: Path, map_index: int, folder: str) -> None:
    task = TaskInstance("tag_shard", map_index, "running", 2, None, None)
    assert locate_task_log(tmp_path, RUN, task) == (
        tmp_path / "dag_id=model_retrain/run_id=manual__1" / folder / "attempt=2.log"
    )


def test_last_error_is_the_message_of_the_exception(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log", STARTED, LINE, FAILED, {"event": "Post Execute", "level": "info"})
    assert read_last_error(log) == "error: too few labels (exit code 78)"
    assert read_last_lines(log, 2) == ["Task failed with exception", "Post Execute"]


def test_truncated_log_is_read_to_its_end(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log", STARTED, LINE, ["no object"])
    with log.open("a") as file:
        file.write('{"event": "half a li')
    assert read_last_error(log) is None
    assert read_last_lines(log, 5) == [LINE["event"], '["no object"]', '{"event": "half a li']


def test_error_without_an_exception_is_its_message(tmp_path: Path) -> None:
    assert read_last_error(write_log(tmp_path / "log", {"event": "killed", "level": "error"})) == "killed"


def test_missing_log_is_empty(tmp_path: Path) -> None:
    log = tmp_path / "none"
    assert (get_log_size(log), read_last_error(log), read_last_lines(log, 5)) == (0, None, [])
