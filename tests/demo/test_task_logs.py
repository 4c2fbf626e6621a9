"""What the log of a task says, whatever state it is in."""

import json
from pathlib import Path

import pytest

from demo.airflow_client import DagRun, TaskInstance
from demo.task_logs import locate_task_log, measure_task_log, read_last_error, read_last_lines

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
def test_a_log_is_where_airflow_writes_it(tmp_path: Path, map_index: int, folder: str) -> None:
    task = TaskInstance("tag_shard", map_index, "running", 2, None, None)
    assert locate_task_log(tmp_path, RUN, task) == (
        tmp_path / "dag_id=model_retrain/run_id=manual__1" / folder / "attempt=2.log"
    )


def test_the_last_error_is_what_the_job_said(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log", STARTED, LINE, FAILED, {"event": "Post Execute", "level": "info"})
    assert read_last_error(log) == "error: too few labels (exit code 78)"
    assert read_last_lines(log, 2) == ["Task failed with exception", "Post Execute"]


def test_a_log_that_a_kill_cut_short_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log", STARTED, LINE, ["no object"])
    with log.open("a") as file:
        file.write('{"event": "half a li')
    assert read_last_error(log) is None
    assert read_last_lines(log, 5) == [LINE["event"], '["no object"]', '{"event": "half a li']


def test_an_error_without_an_exception_is_told_by_itself(tmp_path: Path) -> None:
    assert read_last_error(write_log(tmp_path / "log", {"event": "killed", "level": "error"})) == "killed"


def test_a_task_that_has_not_started_has_no_log(tmp_path: Path) -> None:
    log = tmp_path / "none"
    assert (measure_task_log(log), read_last_error(log), read_last_lines(log, 5)) == (0, None, [])
