"""Tag a catalog with three Celery workers on separate machines, and disturb them.

    python -m benchmarks.scenarios.celery
    python -m benchmarks.scenarios.celery --images 600

Airflow, the broker, Postgres and the S3 endpoint run on one simulated machine, each worker on another. No two machines
share a folder. Workers are started and stopped by the query of the chart's KEDA trigger. Needs root, `ip` and
`redis-server`. The exit code is 1 if work was lost, duplicated or redone beyond the limits.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path

from sqlalchemy import text

from benchmarks.results import Row, publish
from benchmarks.scenarios.celery.events import Disturber
from benchmarks.scenarios.celery.hub import SINGLE_DATABASE, Hub, open_hub
from benchmarks.scenarios.celery.ledger import Chunk, Redone, compare_results, count_redone, read_access_log
from benchmarks.scenarios.celery.network import Network, enter_own_network, find_missing_tools, open_network
from benchmarks.scenarios.celery.workers import WorkerPool, read_query
from demo.airflow_client import AirflowClient, DagRun
from fixtures.champions import make_champion
from fixtures.shop import make_image, write_tiny_models
from fixtures.supervision import supervise
from jobs.connections import Connections, connect
from jobs.database.engine import create_database_engine
from jobs.ingest.manifest import decode_shard
from jobs.settings import PROJECT_ROOT, make_settings
from jobs.storage.locations import manifest_location, shard_location

MODULE = "benchmarks.scenarios.celery"
INGEST_DAG = "catalog_ingest"
WORKERS = 3
RUN_SECONDS = 5400.0
DAG_SECONDS = 300.0
SKIPPED = 0


@dataclass(frozen=True)
class Outcome:
    """What a run did. ``scale`` contains the number of workers at each change of it."""

    run: DagRun
    disturber: Disturber
    redone: dict[str, Redone]
    scale: list[int]
    images: int
    entries: int
    attempts: int

    def list_violations(self, different: int) -> list[str]:
        """Return what went wrong, one line each."""
        checks = {
            f"the run ended as {self.run.state}": self.run.state != "success",
            f"{self.entries} of {self.images} images are in the ledger": self.entries != self.images,
            f"{different} images have other results than those of a single worker": different > 0,
            f"without a cause, {self.redone[''].images} images were read again": self.redone[""].images > 0,
            "a worker was not stopped in time": not self.disturber.was_stopped_in_time,
            f"the number of workers was {self.scale}": (self.scale[0], max(self.scale), self.scale[-1])
            != (0, WORKERS, 0),
        }
        redone = [f"{name}: {one.chunks} chunks were redone" for name, one in self.redone.items() if one.chunks > 1]
        return [message for message, is_wrong in checks.items() if is_wrong] + redone


def main() -> None:
    """Run the scenario and publish the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--chart-values", type=Path, default=PROJECT_ROOT / "deploy" / "helm-workers.yaml")
    arguments = parser.parse_args()
    is_complete = find_spec("celery") and find_spec("redis")
    if reason := find_missing_tools("redis-server") or (None if is_complete else "install requirements-compose.txt"):
        print(f"skipped: {reason}")
        sys.exit(SKIPPED)
    query = read_query(arguments.chart_values)
    supervise()
    enter_own_network(MODULE)
    with _open_catalog(arguments.images) as (hub, network, connections):
        outcome = _run_disturbed(hub, network, connections, query)
        hub.run_job("ingest", database=SINGLE_DATABASE, seconds=RUN_SECONDS)
        single = create_database_engine(hub.format_database_url(SINGLE_DATABASE))
        count, different = compare_results(connections.engine, single)
        single.dispose()
    violations = outcome.list_violations(different + abs(count - arguments.images))
    seconds = (outcome.run.ended_at - outcome.run.started_at).total_seconds()  # type: ignore[operator]
    publish(
        "Celery workers on separate machines",
        f"{arguments.images:,} small images through `catalog_ingest` on three Celery workers without a shared disk, "
        "which are disturbed in the middle of a shard. Counted are images that were read again, and chunks that had "
        f"been read completely before. {seconds:.0f} s, {outcome.attempts} attempts of tasks; the number of workers "
        f"was {', '.join(map(str, outcome.scale))} by the query of KEDA; {different} results differ from those of a "
        "single worker.",
        _make_rows(outcome),
        targets="1 chunk for each event, no different result",
        packages=["apache-airflow", "apache-airflow-providers-celery", "celery"],
    )
    if violations:
        sys.exit("\n".join(violations))


@contextmanager
def _open_catalog(images: int) -> Iterator[tuple[Hub, Network, Connections]]:
    """Start the storage with images and models in it."""
    shard_size = max(60, images // 20)
    with ExitStack() as stack:
        parent = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="celery-")))
        parent.chmod(0o755)
        settings = {
            "CATALOG_SHARD_SIZE": str(shard_size),
            # A small share of a chunk, because a worker reads up to eight batches ahead.
            "CATALOG_BATCH_SIZE": str(max(1, shard_size // 192)),
            "CATALOG_DECODE_PROCESSES": "1",
            "CATALOG_FAILED_SHARE_LIMIT": "0",
            "CATALOG_TAGGING_SLOTS": str(WORKERS),
        }
        hub = stack.enter_context(open_hub(parent / "hub", WORKERS, settings))
        bucket = hub.folder / "buckets" / "images"
        bucket.mkdir(parents=True)
        for number in range(images):
            (bucket / f"p{number // 2:05d}_{number % 2 + 1}.jpg").write_bytes(make_image(number))
        network = stack.enter_context(open_network(parent))
        hub.start_storage()
        variables = hub.jobs | {"CATALOG_MODEL_CACHE": str(hub.folder / "models")}
        models = write_tiny_models(parent / "checkpoints")
        connections = stack.enter_context(connect(make_settings(variables)))
        make_champion(connections, models.classifier, "classifier")
        make_champion(connections, models.encoder, "encoder")
        connections.engine.dispose()
        hub.copy_catalog()
        yield hub, network, connections


def _run_disturbed(hub: Hub, network: Network, connections: Connections, query: str) -> Outcome:
    broker = hub.start_airflow()
    pool = WorkerPool(hub, network, query, WORKERS)
    with AirflowClient(hub.airflow_url, *hub.airflow_login) as airflow:
        airflow.wait_for_dag(INGEST_DAG, DAG_SECONDS)
        with pool.follow():
            run = airflow.trigger_dag(INGEST_DAG)
            run_id = f"{INGEST_DAG}/{run.run_id}"
            disturber = Disturber(hub, pool, connections.engine, run_id, broker)
            disturber.cause_all()
            run = airflow.wait_for_run(run, RUN_SECONDS)
        tasks = airflow.read_task_instances(INGEST_DAG, run.run_id)
    chunks = _read_chunks(connections, run_id)
    with connections.engine.connect() as connection:
        entries = connection.scalar(
            text("SELECT sum(entries) FROM catalog.run_chunks WHERE run_id = :run"), {"run": run_id}
        )
    return Outcome(
        run=run,
        disturber=disturber,
        redone=count_redone(read_access_log(hub.access_log), chunks, disturber.events),
        scale=[number for number, _ in groupby(running for _, _, running in pool.scale)],
        images=len(chunks),
        entries=int(entries or 0),
        attempts=sum(task.try_number for task in tasks),
    )


def _read_chunks(connections: Connections, run_id: str) -> dict[str, Chunk]:
    """Return the shard and chunk of each image, by key."""
    with connections.engine.connect() as connection:
        shards = connection.scalars(
            text("SELECT shard FROM catalog.run_shards WHERE run_id = :run"), {"run": run_id}
        ).all()
    chunks: dict[str, Chunk] = {}
    for number in shards:
        location = shard_location(manifest_location(connections.artifacts, run_id), number)
        for position, images in enumerate(decode_shard(connections.store.read(location)).chunks):
            chunks |= {image.object_key: (number, position) for image in images}
    return chunks


def _make_rows(outcome: Outcome) -> list[Row]:
    return [
        {
            "event": event.name,
            "shards hit": len(event.shards),
            "images read again": outcome.redone[event.name].images,
            "chunks redone": outcome.redone[event.name].chunks,
        }
        for event in outcome.disturber.events
    ]


if __name__ == "__main__":
    main()
