"""Break the environment of a nightly run, and check that the same command then completes the run."""

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
from benchmarks.scenarios.chaos.kill_scenarios import Sandbox, check_tags, open_shop, tag_shop
from benchmarks.scenarios.chaos.sandboxes import Servers
from benchmarks.scenarios.chaos.tally import BREAK_ENVIRONMENT, BREAK_S3, KILL_SERVICES, Tally
from fixtures.fault_proxy import BROKEN_LISTINGS, FOREIGN_BODIES, HARMLESS, Edit, edit_image, refuse, run_fault_proxy
from fixtures.postgres import execute, query
from jobs.local.services import is_alive

Settings = dict[str, str]
Disturb = Callable[[Sandbox, psutil.Process], bool]
"""A function that breaks something during a job, and returns whether the job was still running."""


@contextmanager
def _leave(_: Sandbox) -> Iterator[Settings]:
    yield {}


@dataclass(frozen=True)
class Fault:
    """A fault. ``surround`` starts it before the job and yields settings for the job; ``disturb`` starts it later.

    ``codes`` are the allowed exit codes. ``prepare`` creates the catalog. A fault that would affect other jobs
    ``needs_own_postgres``.
    """

    name: str
    tries: int
    codes: tuple[int, ...]
    disturb: Disturb | None = None
    surround: Callable[[Sandbox], AbstractContextManager[Settings]] = _leave
    prepare: Callable[[Sandbox], None] = open_shop
    needs_own_postgres: bool = False
    group: str = BREAK_ENVIRONMENT


def try_fault(fault: Fault, servers: Servers, tally: Tally) -> None:
    """Run an ingest with a fault, then without it. It must then succeed, and lose nothing."""
    with servers.open_sandbox(own_postgres=fault.needs_own_postgres) as sandbox:
        fault.prepare(sandbox)
        with fault.surround(sandbox) as settings:
            struck: list[bool] = []

            def disturb(job: psutil.Process) -> None:
                struck.append(fault.disturb is None or fault.disturb(sandbox, job))

            finished = sandbox.jobs.run("ingest", disturb=disturb, settings=settings)
        violations = finished.check(*fault.codes)
        if finished.exit_code != DONE:
            violations += sandbox.jobs.run_until_done("ingest").check(DONE)
        tally.add(fault.group, fault.name, violations + check_tags(sandbox), sum(struck))


def _signal_decoders(number: signal.Signals, seconds: float) -> Disturb:
    def disturb(_: Sandbox, job: psutil.Process) -> bool:
        sent, until = 0, None
        while is_alive(job) and (until is None or time.monotonic() < until):
            with suppress(psutil.Error, IndexError):
                decoders = [one for one in job.children(recursive=True) if "spawn_main" in " ".join(one.cmdline())]
                random.choice(decoders).send_signal(number)
                sent, until = sent + 1, until or time.monotonic() + seconds
            time.sleep(0.1)
        return sent > 0

    return disturb


def _limit_files(_: Sandbox, job: psutil.Process) -> bool:
    """Limit the size of files so that the job cannot store the checkpoints it downloads."""
    job.rlimit(psutil.RLIMIT_FSIZE, (20_000, 20_000))
    return True


def _end_sessions(sandbox: Sandbox, job: psutil.Process) -> bool:
    time.sleep(random.uniform(0.3, 2.5))
    end = """
        SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid()
    """
    sandbox.shop.connections.engine.dispose()
    return is_alive(job) and query(sandbox.shop.environment["CATALOG_DATABASE_URL"], end) > 0


def _lock_images(sandbox: Sandbox, _: psutil.Process) -> bool:
    with sandbox.shop.connections.engine.begin() as connection:
        connection.execute(text("LOCK TABLE catalog.images IN ACCESS EXCLUSIVE MODE"))
        time.sleep(8)
        waiting = connection.scalar(text("SELECT count(*) FROM pg_locks WHERE NOT granted"))
    return bool(waiting)


def _stop_postgres(sandbox: Sandbox, job: psutil.Process) -> bool:
    """Suspend Postgres until the job gives up. Meanwhile, the kernel still accepts connections."""
    time.sleep(1)
    processes = _list_postgres(sandbox)
    for process in processes:
        process.suspend()
    was_running = is_alive(job)
    with suppress(psutil.TimeoutExpired):
        job.wait(DEADLINE_SECONDS)
    for process in processes:
        process.resume()
    return was_running


def _crash_postgres(sandbox: Sandbox, job: psutil.Process) -> bool:
    """Kill the process of a session. The server then ends all sessions and recovers; the job may retry too early."""
    time.sleep(random.uniform(0.5, 2))
    sessions = [one for one in _list_postgres(sandbox) if "idle" in " ".join(one.cmdline())]
    if not sessions or not is_alive(job):
        return False
    random.choice(sessions).kill()
    until = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < until:
        with suppress(OperationalError):
            execute(sandbox.shop.environment["CATALOG_DATABASE_URL"], "SELECT 1")
            break
        time.sleep(0.2)
    return True


def _list_postgres(sandbox: Sandbox) -> list[psutil.Process]:
    assert sandbox.postgres_folder
    leader = psutil.Process(int((sandbox.postgres_folder / "postmaster.pid").read_text().splitlines()[0]))
    return [leader, *leader.children(recursive=True)]


@contextmanager
def _refuse_writes(sandbox: Sandbox) -> Iterator[Settings]:
    url = make_url(sandbox.shop.environment["CATALOG_DATABASE_URL"])
    server, change = url.set(database="postgres").render_as_string(False), f"ALTER DATABASE {url.database}"
    execute(server, f"{change} SET default_transaction_read_only = on")
    yield {}
    execute(server, f"{change} RESET default_transaction_read_only")


@contextmanager
def _refuse_connections(_: Sandbox) -> Iterator[Settings]:
    yield {"CATALOG_DATABASE_URL": "postgresql://tagger:x@127.0.0.1:9/catalog"}


def _edit_s3(
    name: str, tries: int, codes: tuple[int, ...], edit: Edit, prepare: Callable[[Sandbox], None] = open_shop
) -> Fault:
    """Return a fault that edits the responses of the S3 endpoint."""

    @contextmanager
    def surround(sandbox: Sandbox) -> Iterator[Settings]:
        with run_fault_proxy(sandbox.shop.environment["CATALOG_S3_ENDPOINT_URL"]) as proxy:
            proxy.edit = edit
            yield {"CATALOG_S3_ENDPOINT_URL": proxy.url}

    return Fault(f"S3: {name}", tries, codes, surround=surround, prepare=prepare, group=BREAK_S3)


def _fail_sometimes(share: float) -> Edit:
    broken = refuse(503, "SlowDown")
    return lambda response: broken(response) if random.random() < share else response


@contextmanager
def _block_cache(sandbox: Sandbox) -> Iterator[Settings]:
    file: Path = sandbox.folder / "file"
    file.touch()
    yield {"CATALOG_MODEL_CACHE": str(file)}


FAULTS = (
    Fault("kill decoding processes", 4, (DONE, RETRY), _signal_decoders(signal.SIGKILL, 4), group=KILL_SERVICES),
    Fault("stop decoding processes", 2, (DONE, RETRY), _signal_decoders(signal.SIGSTOP, 2), group=KILL_SERVICES),
    Fault("end all database sessions", 10, (DONE, RETRY), _end_sessions),
    Fault("lock catalog.images for 8 s", 2, (DONE,), _lock_images),
    Fault("Postgres hangs", 1, (RETRY,), _stop_postgres, needs_own_postgres=True),
    Fault("a Postgres session crashes", 3, (DONE, RETRY), _crash_postgres, needs_own_postgres=True),
    Fault("database is read-only", 1, (RETRY,), surround=_refuse_writes),
    Fault("database refuses connections", 1, (RETRY,), surround=_refuse_connections),
    Fault("file size is limited", 2, (PERMANENT,), _limit_files),
    Fault("a file in place of the cache folder", 1, (PERMANENT,), surround=_block_cache),
    *(_edit_s3(name, 1, (DONE,), edit) for name, edit in HARMLESS.items()),
    *(_edit_s3(f"body is {name}", 1, (RETRY,), edit_image(edit)) for name, edit in FOREIGN_BODIES.items()),
    *(
        _edit_s3(f"listing is {name}", 1, (RETRY, PERMANENT), edit, prepare=tag_shop)
        for name, edit in BROKEN_LISTINGS.items()
    ),
    _edit_s3("503 for one image in five", 3, (DONE, RETRY), _fail_sometimes(0.2)),
    _edit_s3("503 for every image", 1, (RETRY,), _fail_sometimes(1)),
    _edit_s3("wrong clock", 1, (RETRY,), refuse(403, "RequestTimeTooSkewed")),
    _edit_s3("wrong region", 1, (PERMANENT,), refuse(400, "PermanentRedirect", "<Region>eu-north-1</Region>")),
)
