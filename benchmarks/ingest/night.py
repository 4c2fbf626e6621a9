"""Measure how a nightly run spends its time: 20,000 new images in the DAG `catalog_ingest` of a real Airflow.

    python -m benchmarks.ingest.night
    python -m benchmarks.ingest.night --images 4000 --shard-size 1000

Real images are repeated with different bytes, so that no result is reused. Models are int8. The pool has one slot, so
shards run one after the other. According to the ledger, a shard works from the start of its first chunk to the commit
of its last. Everything else is overhead: the rest of the task (imports, loading models), other tasks, and the time
between tasks.
"""

import argparse
import tempfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy import text

from benchmarks.images import find_images, multiply_images
from benchmarks.results import Row, format_share, publish
from benchmarks.tagging_stack import TaggingStack, delete_results, open_int8_stack
from demo.airflow_client import AirflowClient, DagRun, TaskInstance
from jobs.local.airflow_services import AirflowOptions

INGEST_DAG, SHARD_TASK = "catalog_ingest", "tag_shard"
DEADLINE_SECONDS = 3600.0


@dataclass(frozen=True)
class Night:
    """The time of a run and its parts. ``starting_seconds`` is the time of shard tasks outside of tagging."""

    images: int
    shards: int
    seconds: float
    working_seconds: float
    starting_seconds: float
    seconds_by_task: dict[str, float]

    @property
    def between_seconds(self) -> float:
        """Return the seconds in which no task ran."""
        return self.seconds - self.working_seconds - self.starting_seconds - sum(self.seconds_by_task.values())

    @property
    def overhead(self) -> float:
        """Return the share of the run in which no shard worked."""
        return 1 - self.working_seconds / self.seconds

    @property
    def overhead_around_shards(self) -> float:
        """Return the share of the run in which no shard task ran."""
        return self.overhead - self.starting_seconds / self.seconds


def main() -> None:
    """Measure one run and publish the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--shard-size", type=int, help="default: that of the settings")
    arguments = parser.parse_args()
    settings = {"CATALOG_SHARD_SIZE": str(arguments.shard_size)} if arguments.shard_size else {}
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        images = multiply_images(find_images(1000).paths, arguments.images, Path(folder) / "images")
        with open_int8_stack(images, settings, AirflowOptions(pool_slots=1)) as stack:
            delete_results(stack)
            night = _run_night(stack)
    publish(
        "A night in Airflow",
        f"{night.images:,} new images in int8 through the DAG `catalog_ingest` of a real Airflow, shards one after the "
        "other, and the share of the run in which no shard works.",
        [_make_row(night)],
        targets="5 %",
        packages=["apache-airflow", "openvino"],
    )


def _run_night(stack: TaggingStack) -> Night:
    status = stack.status
    assert status.airflow_url
    assert status.password
    with AirflowClient(status.airflow_url, status.username, status.password) as airflow:
        airflow.wait_for_dag(INGEST_DAG, timeout_seconds=120)
        run = airflow.wait_for_run(airflow.trigger_dag(INGEST_DAG), DEADLINE_SECONDS)
        assert run.state == "success", run
        tasks = airflow.read_task_instances(INGEST_DAG, run.run_id)
        report = airflow.read_xcom(INGEST_DAG, run.run_id, "report")
    assert report["failed"] == report["reused"] == 0, report
    with stack.connections.engine.connect() as connection:
        working = connection.execute(
            text("""
                SELECT extract(epoch FROM max(committed_at) - min(committed_at - wall_seconds * interval '1 second'))
                FROM catalog.run_chunks WHERE run_id = :run GROUP BY shard
            """),
            {"run": f"{INGEST_DAG}/{run.run_id}"},
        )
        return add_up(run, tasks, report["tagged"], [float(seconds) for seconds in working.scalars()])


def add_up(run: DagRun, tasks: list[TaskInstance], images: int, working: list[float]) -> Night:
    """Divide the time of a run whose tasks ran one at a time. ``working`` contains the tagging time of each shard."""
    seconds_by_task: dict[str, float] = {}
    for task in tasks:
        if task.state == "success":
            spent = _count_seconds(task.started_at, task.ended_at)
            seconds_by_task[task.task_id] = seconds_by_task.get(task.task_id, 0) + spent
    return Night(
        images=images,
        shards=len(working),
        seconds=_count_seconds(run.started_at, run.ended_at),
        working_seconds=sum(working),
        starting_seconds=seconds_by_task.pop(SHARD_TASK) - sum(working),
        seconds_by_task=seconds_by_task,
    )


def _count_seconds(start: datetime | None, end: datetime | None) -> float:
    assert start
    assert end
    return (end - start).total_seconds()


def _make_row(night: Night) -> Row:
    parts = {
        "shards working": night.working_seconds,
        "their tasks before and after": night.starting_seconds,
        **night.seconds_by_task,
        "between tasks": night.between_seconds,
    }
    return {
        "images": night.images,
        "shards": night.shards,
        **{name: f"{seconds:.1f} s ({format_share(seconds / night.seconds)})" for name, seconds in parts.items()},
        "overhead": format_share(night.overhead),
        "overhead without the start of shards": format_share(night.overhead_around_shards),
    }


if __name__ == "__main__":
    main()
