"""What a nightly run stands on, broken while it runs; afterwards the same command must finish the night."""

import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from sqlalchemy import make_url, text
from sqlalchemy.exc import OperationalError

from benchmarks.scenarios.chaos.jobs import DEADLINE_SECONDS, DONE, PERMANENT, RETRY
from benchmarks.scenarios.chaos.ledger import Ledger
from benchmarks.scenarios.chaos.scenarios import World, judge_tags, open_shop, tag_shop
from benchmarks.scenarios.chaos.worlds import Servers
from fixtures.fault_proxy import Edit, run_fault_proxy
from fixtures.odd_s3_answers import BROKEN_LISTINGS, FOREIGN_BODIES, HARMLESS, edit_photo, refuse
from fixtures.postgres import execute, query
from jobs.local.services import is_alive

Settings = dict[str, str]
Disturb = Callable[[World, psutil.Process], bool]
"""Breaks something while a job runs, and tells whether it met it."""


@contextmanager
def _leave(_: World) -> Iterator[Settings]:
    yield {}


@dataclass(frozen=True)
class Fault:
    """Something breaks: before a job starts, by ``surround``, which gives it settings, or later, by ``disturb``.

    ``codes`` are those that the job may end with. It starts from a catalog that `prepare` makes, on a Postgres of its
    own if other jobs must not notice.
    """

    name: str
    tries: int
    codes: tuple[int, ...]
    disturb: Disturb | None = None
    surround: Callable[[World], AbstractContextManager[Settings]] = _leave
    prepare: Callable[[World], None] = open_shop
    needs_own_postgres: bool = False


def try_fault(fault: Fault, servers: Servers, ledger: Ledger) -> None:
    """Run a night under a fault, then without it: it must end well, and nothing be lost."""
    with servers.open_world(own_postgres=fault.needs_own_postgres) as world:
        fault.prepare(world)
        with fault.surround(world) as settings:
            struck: list[bool] = []

            def disturb(job: psutil.Process) -> None:
                struck.append(fault.disturb is None or fault.disturb(world, job))

            ended = world.jobs.run("ingest", disturb=disturb, settings=settings)
        harm = ended.judge(*fault.codes)
        if ended.exit_code != DONE:
            harm += world.jobs.run_until_done("ingest").judge(DONE)
        ledger.add(fault.name, harm + judge_tags(world), sum(struck))


def _signal_decoders(number: signal.Signals, seconds: float) -> Disturb:
    def disturb(_: World, job: psutil.Process) -> bool:
        sent, until = 0, None
        while is_alive(job) and (until is None or time.monotonic() < until):
            with suppress(psutil.Error, IndexError):
                decoders = [one for one in job.children(recursive=True) if "spawn_main" in " ".join(one.cmdline())]
                random.choice(decoders).send_signal(number)
                sent, until = sent + 1, until or time.monotonic() + seconds
            time.sleep(0.1)
        return sent > 0

    return disturb


def _limit_files(_: World, job: psutil.Process) -> bool:
    """Let no file grow any more: the checkpoints that the job fetches do not fit."""
    job.rlimit(psutil.RLIMIT_FSIZE, (20_000, 20_000))
    return True


def _end_sessions(world: World, job: psutil.Process) -> bool:
    time.sleep(random.uniform(0.3, 2.5))
    end = """
        SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid()
    """
    world.shop.connections.engine.dispose()
    return is_alive(job) and query(world.shop.environment["CATALOG_DATABASE_URL"], end) > 0


def _lock_images(world: World, _: psutil.Process) -> bool:
    with world.shop.connections.engine.begin() as connection:
        connection.execute(text("LOCK TABLE catalog.images IN ACCESS EXCLUSIVE MODE"))
        time.sleep(8)
        waiting = connection.scalar(text("SELECT count(*) FROM pg_locks WHERE NOT granted"))
    return bool(waiting)


def _stop_postgres(world: World, job: psutil.Process) -> bool:
    """Until the job has given up: the kernel takes connections all the while."""
    time.sleep(1)
    processes = _list_postgres(world)
    for process in processes:
        process.suspend()
    was_running = is_alive(job)
    with suppress(psutil.TimeoutExpired):
        job.wait(DEADLINE_SECONDS)
    for process in processes:
        process.resume()
    return was_running


def _crash_postgres(world: World, job: psutil.Process) -> bool:
    """Kill a session's process: the server ends all others and recovers, for which the job may be too early."""
    time.sleep(random.uniform(0.5, 2))
    sessions = [one for one in _list_postgres(world) if "idle" in " ".join(one.cmdline())]
    if not sessions or not is_alive(job):
        return False
    random.choice(sessions).kill()
    until = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < until:
        with suppress(OperationalError):
            execute(world.shop.environment["CATALOG_DATABASE_URL"], "SELECT 1")
            break
        time.sleep(0.2)
    return True


def _list_postgres(world: World) -> list[psutil.Process]:
    assert world.postgres_folder
    leader = psutil.Process(int((world.postgres_folder / "postmaster.pid").read_text().splitlines()[0]))
    return [leader, *leader.children(recursive=True)]


@contextmanager
def _take_no_writes(world: World) -> Iterator[Settings]:
    url = make_url(world.shop.environment["CATALOG_DATABASE_URL"])
    server, change = url.set(database="postgres").render_as_string(False), f"ALTER DATABASE {url.database}"
    execute(server, f"{change} SET default_transaction_read_only = on")
    yield {}
    execute(server, f"{change} RESET default_transaction_read_only")


@contextmanager
def _refuse_connections(_: World) -> Iterator[Settings]:
    yield {"CATALOG_DATABASE_URL": "postgresql://tagger:x@127.0.0.1:9/catalog"}


def _answer_oddly(edit: Edit) -> Callable[[World], AbstractContextManager[Settings]]:
    @contextmanager
    def surround(world: World) -> Iterator[Settings]:
        with run_fault_proxy(world.shop.environment["CATALOG_S3_ENDPOINT_URL"]) as proxy:
            proxy.edit = edit
            yield {"CATALOG_S3_ENDPOINT_URL": proxy.url}

    return surround


def _fail_now_and_then(share: float) -> Edit:
    broken = refuse(503, "SlowDown")
    return lambda answer: broken(answer) if random.random() < share else answer


@contextmanager
def _put_file_in_the_way(world: World) -> Iterator[Settings]:
    file: Path = world.folder / "file"
    file.touch()
    yield {"CATALOG_MODEL_CACHE": str(file)}


FAULTS = (
    Fault("kill decoding processes", 4, (DONE, RETRY), _signal_decoders(signal.SIGKILL, 4)),
    Fault("stop decoding processes", 2, (DONE, RETRY), _signal_decoders(signal.SIGSTOP, 2)),
    Fault("end all database sessions", 10, (DONE, RETRY), _end_sessions),
    Fault("lock catalog.images for 8 s", 2, (DONE,), _lock_images),
    Fault("Postgres stands still", 1, (RETRY,), _stop_postgres, needs_own_postgres=True),
    Fault("a session of Postgres crashes", 3, (DONE, RETRY), _crash_postgres, needs_own_postgres=True),
    Fault("database is read-only", 1, (RETRY,), surround=_take_no_writes),
    Fault("database refuses connections", 1, (RETRY,), surround=_refuse_connections),
    Fault("files may not grow", 2, (PERMANENT,), _limit_files),
    Fault("a file where the cache should be", 1, (PERMANENT,), surround=_put_file_in_the_way),
    *(Fault(f"S3: {name}", 1, (DONE,), surround=_answer_oddly(edit)) for name, edit in HARMLESS.items()),
    *(
        Fault(f"S3: body is {name}", 1, (RETRY,), surround=_answer_oddly(edit_photo(edit)))
        for name, edit in FOREIGN_BODIES.items()
    ),
    *(
        Fault(f"S3: listing is {name}", 1, (RETRY, PERMANENT), surround=_answer_oddly(edit), prepare=tag_shop)
        for name, edit in BROKEN_LISTINGS.items()
    ),
    Fault("S3: 503 for one photo in five", 3, (DONE, RETRY), surround=_answer_oddly(_fail_now_and_then(0.2))),
    Fault("S3: 503 for every photo", 1, (RETRY,), surround=_answer_oddly(_fail_now_and_then(1))),
    Fault("S3: wrong clock", 1, (RETRY,), surround=_answer_oddly(refuse(403, "RequestTimeTooSkewed"))),
    Fault(
        "S3: wrong region",
        1,
        (PERMANENT,),
        surround=_answer_oddly(refuse(400, "PermanentRedirect", "<Region>eu-north-1</Region>")),
    ),
)
