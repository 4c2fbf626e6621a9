"""The benchmark of a night divides its time."""

from datetime import UTC, datetime, timedelta

import pytest

from benchmarks.ingest.night import add_up
from demo.airflow_client import DagRun, TaskInstance

START = datetime(2026, 1, 1, 2, tzinfo=UTC)


def make_task(task_id: str, start: float, end: float, map_index: int = -1, state: str = "success") -> TaskInstance:
    return TaskInstance(task_id, map_index, state, 1, START + timedelta(seconds=start), START + timedelta(seconds=end))


def test_parts_add_up_and_everything_except_working_shards_is_overhead() -> None:
    run = DagRun("catalog_ingest", "run", "success", START, START + timedelta(seconds=200))
    tasks = [
        make_task("discover", 1, 5),
        make_task("tag_shard", 6, 96, map_index=0),
        make_task("tag_shard", 98, 188, map_index=1),
        make_task("publish", 189, 192),
        make_task("report", 194, 196),
        make_task("announce_drift", 197, 199, state="skipped"),
    ]
    night = add_up(run, tasks, images=100, working=[85, 80])
    assert (night.shards, night.seconds, night.working_seconds, night.starting_seconds) == (2, 200, 165, 15)
    assert night.seconds_by_task == {"discover": 4, "publish": 3, "report": 2}
    assert night.between_seconds == pytest.approx(200 - 165 - 15 - 9)
    assert night.overhead == pytest.approx(35 / 200)
    assert night.overhead_around_shards == pytest.approx(20 / 200)
