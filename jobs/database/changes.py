"""Queries on the change feed: read changes with the state of their products, and store the cursors of consumers."""

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from sqlalchemy import Connection, Result, text

from jobs.errors import ConfigurationError, RefusedError

RETENTION_DAYS = 30
"""Age at which changes are deleted, whether or not every consumer has read them."""


@dataclass(frozen=True, order=True)
class Cursor:
    """A place in the feed: all changes up to this one have been read."""

    transaction_id: int
    change_id: int

    @classmethod
    def parse(cls, words: str) -> Self:
        """Parse the form that `__str__` returns.

        Raises:
            ConfigurationError: it has another form.
        """
        # No cursor has longer numbers, and Postgres would not accept them.
        numbers = re.fullmatch(r"([0-9]{1,18})-([0-9]{1,18})", words)
        if numbers is None:
            raise ConfigurationError(
                f"{words!r} is not a cursor. Copy one that `catalog export` or `changes` has printed"
            )
        return cls(*map(int, numbers.groups()))

    def __str__(self) -> str:
        return f"{self.transaction_id}-{self.change_id}"

    @property
    def parameters(self) -> dict[str, str | int]:
        """Return the parameters of a statement, which compares ``(transaction_id, change_id)`` with them."""
        return {"transaction": str(self.transaction_id), "change": self.change_id}


START = Cursor(0, 0)


@dataclass(frozen=True)
class Change:
    """A change, and what the catalog says about its product now.

    ``product_id`` is None for the switch of a model. ``product`` has the columns of ``current_product_tags``. It is
    None if nothing is said about the product (any more).
    """

    transaction_id: int
    change_id: int
    kind: str
    product_id: str | None
    happened_at: datetime
    product: dict[str, Any] | None

    @property
    def cursor(self) -> Cursor:
        """Return the place after this change."""
        return Cursor(self.transaction_id, self.change_id)


def read_changes(connection: Connection, after: Cursor, limit: int) -> list[Change]:
    """Return the next changes in the order of the feed.

    They are read with the state of their products in one snapshot, so later calls never return an older state.
    """
    statement = text("""
        SELECT CAST(transaction_id AS text) AS transaction_id, change_id, kind, product_id, happened_at,
               catalog.product_state(product_id) AS product
        FROM catalog.readable_changes
        WHERE (transaction_id, change_id) > (:transaction, :change)
        ORDER BY transaction_id, change_id LIMIT :limit
    """)
    return fetch_changes(connection.execute(statement, {**after.parameters, "limit": limit}))


def fetch_changes(rows: Result[Any]) -> list[Change]:
    """Return the rows of a result as changes. Transaction ids are texts, because the driver has no type for them."""
    return [Change(**{**row, "transaction_id": int(row["transaction_id"])}) for row in rows.mappings()]


def read_end(connection: Connection) -> Cursor:
    """Return the place before all changes that the current snapshot may not contain."""
    oldest = connection.scalar(text("SELECT CAST(pg_snapshot_xmin(pg_current_snapshot()) AS text)"))
    return Cursor(int(str(oldest)), 0)


def require_complete(connection: Connection, after: Cursor) -> None:
    """Check that the feed still has all changes after a cursor.

    Raises:
        RefusedError: some were deleted for their age, or the cursor is from a database that was restored since.
    """
    is_deleted, is_foreign = connection.execute(
        text("""
            SELECT EXISTS (
                       SELECT FROM catalog.change_horizon WHERE (transaction_id, change_id) > (:transaction, :change)
                   ),
                   CAST(:transaction AS xid8) > pg_snapshot_xmax(pg_current_snapshot())
        """),
        after.parameters,
    ).one()
    if is_deleted:
        reason = f"changes after it were deleted, because they are older than {RETENTION_DAYS} days"
    elif is_foreign:
        reason = "the database was restored or replaced since"
    else:
        return
    raise RefusedError(f"cannot continue from cursor {after}: {reason}. Export again, and use the cursor of the export")


def delete_old_changes(connection: Connection) -> int:
    """Delete the changes before the first that is younger than `RETENTION_DAYS`, and return their number."""
    # Reads only what is deleted. A condition on the time alone would read the whole feed.
    first_kept = connection.execute(
        text("""
            SELECT CAST(transaction_id AS text), change_id FROM catalog.readable_changes
            WHERE happened_at >= now() - make_interval(days => :days)
            ORDER BY transaction_id, change_id LIMIT 1
        """),
        {"days": RETENTION_DAYS},
    ).one_or_none()
    end = read_end(connection) if first_kept is None else Cursor(int(first_kept[0]), first_kept[1])
    statement = text("""
        WITH deleted AS (
            DELETE FROM catalog.changes WHERE (transaction_id, change_id) < (:transaction, :change)
            RETURNING transaction_id, change_id
        ), horizon AS (
            INSERT INTO catalog.change_horizon (transaction_id, change_id)
            SELECT transaction_id, change_id FROM deleted ORDER BY transaction_id DESC, change_id DESC LIMIT 1
            ON CONFLICT (is_only) DO UPDATE
            SET transaction_id = excluded.transaction_id, change_id = excluded.change_id
        )
        SELECT count(*) FROM deleted
    """)
    deleted: int = connection.execute(statement, end.parameters).scalar_one()
    return deleted


def try_lock_consumer(connection: Connection, consumer: str) -> bool:
    """Lock a consumer until the connection closes. Return False if another process reads as this consumer."""
    statement = text("SELECT pg_try_advisory_lock(hashtextextended('consumer ' || :consumer, 0))")
    return bool(connection.scalar(statement, {"consumer": consumer}))


def read_consumer(connection: Connection, consumer: str) -> Cursor | None:
    """Return the place of a consumer, or None if it is new."""
    row = connection.execute(
        text("""
            SELECT CAST(transaction_id AS text), change_id FROM catalog.change_consumers WHERE consumer = :consumer
        """),
        {"consumer": consumer},
    ).one_or_none()
    return None if row is None else Cursor(int(row[0]), row[1])


def advance_consumer(connection: Connection, consumer: str, cursor: Cursor) -> None:
    """Store the place of a consumer, which may be new. A webhook no longer counts as failing."""
    connection.execute(
        text("""
            INSERT INTO catalog.change_consumers (consumer, transaction_id, change_id)
            VALUES (:consumer, :transaction, :change)
            ON CONFLICT (consumer) DO UPDATE
            SET transaction_id = excluded.transaction_id, change_id = excluded.change_id, advanced_at = now(),
                failing_since = NULL, last_error = NULL
        """),
        {"consumer": consumer, **cursor.parameters},
    )


def record_consumer_failure(connection: Connection, consumer: str, error: str) -> float:
    """Store why a webhook failed, and return for how many seconds it has been failing."""
    statement = text("""
        UPDATE catalog.change_consumers SET failing_since = coalesce(failing_since, now()), last_error = :error
        WHERE consumer = :consumer
        RETURNING extract(epoch FROM now() - failing_since)
    """)
    return float(connection.execute(statement, {"consumer": consumer, "error": error}).scalar_one())
