"""Where the time of a night goes: 20,000 new photos through the DAG `catalog_ingest` of a real Airflow.

    python -m benchmarks.ingest.night
    python -m benchmarks.ingest.night --photos 4000 --shard-size 1000

The photos are real ones, over and over, each with bytes of its own, so that none is known from before; models in int8,
one slot in the pool, so that shards follow one another. A shard works from the start of its first chunk to the commit
of its last, by the ledger. Everything else is overhead: imports and models in its task before that, the other tasks,
and what lies between tasks, which is Airflow's.
"""

import argparse
import json
import os
import tempfile
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy import text

from benchmarks.filled_stack import FilledStack, forget_answers, open_int8_stack
from benchmarks.machine import describe_machine
from benchmarks.materials import find_photos, multiply_photos
from demo.airflow_client import AirflowClient, DagRun, TaskInstance
from jobs.local.airflow_services import AirflowOptions
from jobs.settings import PROJECT_ROOT

INGEST_DAG, SHARD_TASK = "catalog_ingest", "tag_shard"
PATIENCE_SECONDS = 3600.0


@dataclass(frozen=True)
class Night:
    """Seconds of a run from its start to its end, which add up; ``starting_seconds`` are those of shards."""

    photos: int
    shards: int
    seconds: float
    working_seconds: float
    starting_seconds: float
    seconds_by_task: dict[str, float]

    @property
    def between_seconds(self) -> float:
        """In which no task ran."""
        return self.seconds - self.working_seconds - self.starting_seconds - sum(self.seconds_by_task.values())

    @property
    def overhead(self) -> float:
        """The share of a run in which no shard worked."""
        return 1 - self.working_seconds / self.seconds

    @property
    def overhead_around_shards(self) -> float:
        """The share of a run in which no shard's task ran."""
        return self.overhead - self.starting_seconds / self.seconds


def main() -> None:
    """Run the benchmark, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=20_000)
    parser.add_argument("--shard-size", type=int, help="other than the default of the settings")
    parser.add_argument("--json", type=Path, default=PROJECT_ROOT / ".local" / "bench-night.json")
    arguments = parser.parse_args()
    real = find_photos(1000)
    if arguments.shard_size:
        os.environ["CATALOG_SHARD_SIZE"] = str(arguments.shard_size)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        photos = multiply_photos(real.paths, arguments.photos, Path(folder) / "photos")
        with open_int8_stack(photos, AirflowOptions(pool_slots=1)) as stack:
            forget_answers(stack)
            night = _run_night(stack)
    summary = {
        **describe_machine("apache-airflow", "openvino"),
        "photo_kind": real.kind,
        **asdict(night),
        "between_seconds": night.between_seconds,
        "overhead": night.overhead,
        "overhead_around_shards": night.overhead_around_shards,
    }
    arguments.json.parent.mkdir(exist_ok=True)
    arguments.json.write_text(json.dumps(summary, indent=2))
    print(f"{night.photos} {real.kind}; {summary['cores']} cores of {summary['processor']}")
    _print_night(night)


def _run_night(stack: FilledStack) -> Night:
    status = stack.status
    assert status.airflow_url
    assert status.password
    with AirflowClient(status.airflow_url, status.username, status.password) as airflow:
        airflow.wait_for_dag(INGEST_DAG, timeout_seconds=120)
        run = airflow.wait_for_run(airflow.trigger_dag(INGEST_DAG), PATIENCE_SECONDS)
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


def add_up(run: DagRun, tasks: list[TaskInstance], photos: int, working: list[float]) -> Night:
    """Divide the time of a run in which one task ran at a time; ``working`` are the seconds of each shard."""
    seconds_by_task: dict[str, float] = {}
    for task in tasks:
        if task.state == "success":
            spent = _count_seconds(task.started_at, task.ended_at)
            seconds_by_task[task.task_id] = seconds_by_task.get(task.task_id, 0) + spent
    return Night(
        photos=photos,
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


def _print_night(night: Night) -> None:
    parts = {
        f"{night.shards} shards working": night.working_seconds,
        "their tasks starting and ending": night.starting_seconds,
        **night.seconds_by_task,
        "between tasks": night.between_seconds,
        "all": night.seconds,
    }
    for name, seconds in parts.items():
        print(f"{name:33}{seconds:8.1f} s{seconds / night.seconds:8.1%}")
    print(f"overhead {night.overhead:.1%}, without the start of shards {night.overhead_around_shards:.1%}, bar 5 %")


if __name__ == "__main__":
    main()
