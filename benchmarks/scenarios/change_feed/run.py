"""Run the writer, the reader and the kills."""

import random
import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from sqlalchemy import Connection, Engine, text

from benchmarks.results import Row
from benchmarks.scenarios.change_feed.replica import CONSUMER, LineProcess, Replica, describe_states
from fixtures.catalog_rows import NewImage, add_images, open_live_space, promote_model, register_model
from jobs.database.changes import read_consumer

MAX_CATCH_UP_SECONDS = 120


@dataclass(frozen=True)
class Plan:
    """How many kills, how long to measure the lag before them, and how long the pauses between kills are at most."""

    kills: int
    quiet_seconds: float
    max_pause_seconds: float = 3.0
    products: int = 500
    seed: int = 0


@dataclass(frozen=True)
class Outcome:
    """What happened. Lags are the seconds from commits to lines, without kills and with them."""

    kills: int
    commits: int
    lines: int
    differences: int
    examples: str
    quiet_lags: tuple[float, ...]
    killed_lags: tuple[float, ...]

    @property
    def row(self) -> Row:
        """Return the row of the table."""
        return {
            "what": "replica",
            "kills": self.kills,
            "commits": self.commits,
            "lines": self.lines,
            "products that differ": self.differences,
            "lag": _format_lag(self.quiet_lags),
            "lag during the kills": _format_lag(self.killed_lags),
        }


def _format_lag(lags: tuple[float, ...]) -> str | None:
    return ", ".join(f"{value:.2f}" for value in np.percentile(lags, [50, 95])) if lags else None


def run_feed(engine: Engine, environment: Mapping[str, str], plan: Plan) -> Outcome:
    """Fill a catalog, change and follow it, kill both ends, and compare."""
    with engine.begin() as connection:
        fill(connection, plan.products)
    choose = random.Random(plan.seed)
    replica, committed_at = Replica(engine), dict[str, float]()
    since = replica.load()

    def note_commit(line: str) -> None:
        transaction_id, moment = line.split()
        committed_at[transaction_id] = float(moment)

    url = engine.url.render_as_string(hide_password=False)
    words = ["jobs", "changes", "--consumer", CONSUMER, "--follow"]
    starts = iter([[*words, "--since", since]])
    reader = LineProcess(lambda: next(starts, words), environment, replica.apply)
    writer = LineProcess(
        lambda: ["benchmarks.scenarios.change_feed.writer", url, str(choose.random())], environment, note_commit
    )
    reader.start()
    wait_for_consumer(engine)
    writer.start()
    time.sleep(plan.quiet_seconds)
    quiet = dict(committed_at)
    done = 0
    while done < plan.kills:
        time.sleep(choose.uniform(0, plan.max_pause_seconds))
        victim = choose.choice([reader, writer])
        done += victim.stop()
        victim.start()
    writer.stop()
    try:
        wait_until_read(engine)
    finally:
        reader.stop(kill=False)
    with engine.connect() as connection:
        differences = replica.find_differences(connection)
    lags = {
        name: max(0.0, replica.seen_at[name] - committed_at[name]) for name in committed_at.keys() & replica.seen_at
    }
    return Outcome(
        kills=done,
        commits=len(committed_at),
        lines=replica.lines,
        differences=len(differences),
        examples=describe_states(differences),
        quiet_lags=tuple(lag for name, lag in lags.items() if name in quiet),
        killed_lags=tuple(lag for name, lag in lags.items() if name not in quiet),
    )


def fill(connection: Connection, products: int) -> None:
    """Insert two classifiers, one of them live, and products with two images each."""
    promote_model(connection, "classifier")
    register_model(connection, "classifier")
    space = open_live_space(connection, 3)
    add_images(connection, [NewImage(f"p{number // 2}", None) for number in range(2 * products)], space, None)
    connection.execute(
        text("""
            INSERT INTO catalog.product_tags
            SELECT product_id, model_version_id, 'category 0', 0.5, 1, false, ''
            FROM catalog.products CROSS JOIN catalog.model_versions WHERE kind = 'classifier'
        """)
    )


def wait_for_consumer(engine: Engine) -> None:
    """Wait until the reader has stored where it starts."""
    deadline = time.monotonic() + MAX_CATCH_UP_SECONDS
    with engine.connect() as connection:
        while read_consumer(connection, CONSUMER) is None:
            connection.rollback()
            assert time.monotonic() < deadline, "the reader has not started"
            time.sleep(0.05)


def wait_until_read(engine: Engine) -> None:
    """Wait until the reader has read every change. The sessions of killed writers end first."""
    unread = text("""
        SELECT EXISTS (
            SELECT FROM catalog.changes c JOIN catalog.change_consumers r ON r.consumer = :consumer
            WHERE (c.transaction_id, c.change_id) > (r.transaction_id, r.change_id)
        ) OR EXISTS (
            SELECT FROM pg_stat_activity
            WHERE datname = current_database() AND backend_xid IS NOT NULL AND pid <> pg_backend_pid()
        )
    """)
    deadline = time.monotonic() + MAX_CATCH_UP_SECONDS
    with engine.connect() as connection:
        while connection.scalar(unread, {"consumer": CONSUMER}):
            connection.rollback()
            assert time.monotonic() < deadline, "the reader does not catch up"
            time.sleep(0.1)
