"""Show the state of the catalog on one screen."""

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import typer
from sqlalchemy import Connection, text

from jobs.commands.options import give_examples
from jobs.commands.terminal import Listing, print_sections
from jobs.connections import Connections, connect
from jobs.database.engine import describe_address, open_reading
from jobs.database.images import count_roughly
from jobs.database.item_failures import FailureCount, count_failures
from jobs.database.job_progress import RunningJob, list_running_jobs
from jobs.database.model_builds import list_builds
from jobs.database.model_coverage import MAX_WAITING, WaitingImages, count_untagged
from jobs.database.promotions import Champion, list_champions
from jobs.database.run_history import RunSummary, list_runs
from jobs.database.tables import images, products
from jobs.review.queue import MAX_COUNTED, Backlog, find_review_queue, read_backlog
from jobs.settings import load_settings
from jobs.units import format_duration, format_number, format_share, format_size, format_time, format_words

RUNS_SHOWN = 5
MAX_FILES_MEASURED = 50_000
"""Maximum number of files of the cache to measure, to limit the time."""

app = typer.Typer()


@dataclass(frozen=True)
class ServedChampion:
    """A champion and the builds that serve it, such as "openvino int8 on cpu"."""

    champion: Champion
    builds: tuple[str, ...]


@dataclass(frozen=True)
class DiskUse:
    """Disk space in bytes. ``is_partial`` says that the cache contains more files than were measured."""

    database_bytes: int
    cache_folder: str
    cache_bytes: int
    is_partial: bool
    free_bytes: int


@dataclass(frozen=True)
class CatalogStatus:
    """The state of the catalog. ``next_step`` says what to do now."""

    database: str
    source_uri: str
    images: int
    products: int
    champions: tuple[ServedChampion, ...]
    waiting: WaitingImages
    to_review: tuple[Backlog, ...]
    failures: tuple[FailureCount, ...]
    jobs: tuple[RunningJob, ...]
    runs: tuple[RunSummary, ...]
    disk: DiskUse
    next_step: str


@app.command(epilog=give_examples("catalog status", "catalog status --json"))
def status() -> None:
    """Show the state of the catalog on one screen: models, runs, failures, work left, disk."""
    with connect(load_settings()) as connections, open_reading(connections.engine) as connection:
        state = read_status(connection, connections)
    print_sections(state, format_sections(state), f"Next: {state.next_step}")


def read_status(connection: Connection, connections: Connections) -> CatalogStatus:
    """Read everything that the screen shows. No statement reads all rows of a large table."""
    settings = connections.settings
    champions = tuple(_list_builds(connection, champion) for champion in list_champions(connection))
    runs, waiting = list_runs(connection, RUNS_SHOWN), count_untagged(connection)
    to_review = read_backlog(connection, find_review_queue(connection, settings.runs))
    return CatalogStatus(
        database=describe_address(settings.locations.database_url),
        source_uri=str(connections.source),
        images=count_roughly(connection, images),
        products=count_roughly(connection, products),
        champions=champions,
        waiting=waiting,
        to_review=to_review,
        failures=count_failures(connection),
        jobs=list_running_jobs(connection),
        runs=runs,
        disk=_measure_disk(connection, settings.locations.model_cache),
        next_step=choose_next_step(champions, runs, waiting, to_review),
    )


def choose_next_step(
    champions: Sequence[ServedChampion],
    runs: Sequence[RunSummary],
    waiting: WaitingImages,
    to_review: Sequence[Backlog],
) -> str:
    """Return what to do now, in one line."""
    if not champions:
        return (
            "import labels and train with `catalog import-labels` and `catalog retrain`, or search without labels "
            "after `catalog adopt encoder`"
        )
    if not runs:
        return "`catalog ingest` tags every image in the bucket"
    late = [
        one.champion for one in champions if one.champion.live_version_id not in {None, one.champion.model_version_id}
    ]
    if late:
        return f"`catalog retag` makes {late[0].kind} {late[0].model_version_id} live"
    if waiting.unread or waiting.untagged_share:
        return "`catalog ingest` tags the waiting images"
    if any(one.images for one in to_review):
        return "review images on the page Review (`catalog stack status` shows the address of a local stack)"
    return "nothing to do until the bucket changes; `catalog ingest` looks for new images"


def _list_builds(connection: Connection, champion: Champion) -> ServedChampion:
    builds = list_builds(connection, champion.model_version_id)
    return ServedChampion(champion, tuple(build.describe() for build in builds if build.artifact_uri))


def _measure_disk(connection: Connection, cache: Path) -> DiskUse:
    database_bytes = connection.execute(text("SELECT pg_database_size(current_database())")).scalar_one()
    sizes = list(islice(_list_file_sizes(cache), MAX_FILES_MEASURED + 1))
    existing = next(folder for folder in (cache, *cache.parents) if folder.exists())
    return DiskUse(
        database_bytes, str(cache), sum(sizes), len(sizes) > MAX_FILES_MEASURED, shutil.disk_usage(existing).free
    )


def _list_file_sizes(folder: Path) -> Iterator[int]:
    for path, _, names in os.walk(folder):
        for name in names:
            try:
                yield Path(path, name).lstat().st_size
            except FileNotFoundError:
                # A job has deleted it in the meantime.
                continue


CHAMPION_HEAD = ("champion", "version", "state", "served by", "since", "by")
RUN_HEAD = ("run", "state", "duration", "images", "failed", "images/s", "id")


def format_sections(state: CatalogStatus) -> dict[str, Listing]:
    """Return the tables of the screen by their titles."""
    jobs = [(job.task, job.progress.describe(), job.run_id) for job in state.jobs]
    sections = {
        "Catalog": Listing((), _describe_catalog(state)),
        "Models": Listing(CHAMPION_HEAD, [_describe_champion(one) for one in state.champions]),
        "Running now": Listing(("task", "progress", "run"), jobs),
        "Last runs": Listing(RUN_HEAD, [_describe_run(run) for run in state.runs]),
        "Open failures": Listing(("reason", "images", "what happens"), list(map(_describe_failure, state.failures))),
    }
    return {title: listing for title, listing in sections.items() if listing.rows}


def _describe_catalog(state: CatalogStatus) -> list[tuple[str, ...]]:
    disk = state.disk
    cache = f"{'more than ' if disk.is_partial else ''}{format_size(disk.cache_bytes)} in {disk.cache_folder}"
    reviews = [f"{_count(one.images, MAX_COUNTED)} {format_words(one.reason)}" for one in state.to_review if one.images]
    return [
        ("database", f"{state.database}, {format_size(disk.database_bytes)}"),
        ("source", state.source_uri),
        ("cache", f"{cache}, {format_size(disk.free_bytes)} free"),
        ("images", f"{format_number(state.images)} of {format_number(state.products)} products"),
        ("waiting", _describe_waiting(state.waiting)),
        ("to review", ", ".join(reviews) or "none"),
    ]


def _describe_waiting(waiting: WaitingImages) -> str:
    parts = [f"{_count(waiting.unread, MAX_WAITING)} not read yet"] if waiting.unread else []
    if waiting.untagged_share:
        parts.append(f"about {format_share(waiting.untagged_share)} of the others not processed by the live models")
    return ", ".join(parts) or "none since the last listing of the bucket"


def _count(number: int, limit: int) -> str:
    return f"{format_number(number)} or more" if number >= limit else format_number(number)


def _describe_champion(one: ServedChampion) -> tuple[str, ...]:
    champion = one.champion
    if champion.live_version_id == champion.model_version_id:
        state = "live"
    elif champion.live_version_id is None:
        state = "live after the first ingest"
    else:
        state = f"version {champion.live_version_id} is live"
    builds = "; ".join(one.builds) or "none yet"
    return (
        champion.kind,
        str(champion.model_version_id),
        state,
        builds,
        format_time(champion.promoted_at),
        champion.promoted_by,
    )


def _describe_run(run: RunSummary) -> tuple[str, ...]:
    return (
        run.title,
        run.state,
        format_duration(run.duration_seconds),
        format_number(run.entries),
        format_number(run.failed),
        format_number(run.images_per_second),
        run.run_id,
    )


def _describe_failure(failure: FailureCount) -> tuple[str, ...]:
    fate = "retried automatically" if failure.is_temporary else "replace the file"
    return format_words(failure.reason), format_number(failure.images), fate
