"""Follow the change feed as a named consumer, at least once and in order."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC

from sqlalchemy import Connection, Engine

from jobs.database.changes import (
    Change,
    Cursor,
    advance_consumer,
    read_changes,
    read_consumer,
    read_end,
    require_complete,
    try_lock_consumer,
)
from jobs.errors import RetryableError

PAGE = 500
"""Changes that are read at once, and sent to a webhook in one request."""
POLL_SECONDS = 0.5


@contextmanager
def open_consumer(engine: Engine, consumer: str, since: Cursor | None = None) -> Iterator[Connection]:
    """Yield a connection on which this process alone reads as the consumer, from ``since`` on if it is given.

    A new consumer starts with the changes from now on.

    Raises:
        RetryableError: another process reads as this consumer.
        RefusedError: changes that it has not read were deleted.
    """
    with engine.connect() as connection:
        try:
            with connection.begin():
                if not try_lock_consumer(connection, consumer):
                    raise RetryableError(
                        f"another process reads the changes as {consumer}: stop it, or wait for its end"
                    )
                after = since or read_consumer(connection, consumer)
                if after is not None:
                    require_complete(connection, after)
                if after is None or since is not None:
                    advance_consumer(connection, consumer, after or read_end(connection))
            yield connection
        finally:
            # The lock ends with the session, so the session must not go back to the pool.
            connection.invalidate()


def read_next(connection: Connection, consumer: str) -> list[Change]:
    """Return the next page of changes for a consumer. The same page is returned until `advance` is called."""
    with connection.begin():
        after = read_consumer(connection, consumer)
        assert after is not None
        return read_changes(connection, after, PAGE)


def advance(connection: Connection, consumer: str, page: Sequence[Change]) -> None:
    """Move a consumer past the last change of a page."""
    with connection.begin():
        advance_consumer(connection, consumer, page[-1].cursor)


def print_changes(
    engine: Engine,
    consumer: str,
    since: Cursor | None,
    write: Callable[[str], object],
    is_over: Callable[[bool], bool],
) -> None:
    """Write the changes as lines, and advance the consumer after each page that was written.

    ``write`` returns once the lines cannot get lost in this process. ``is_over`` is called after each page, with
    whether there are no more changes at the moment.
    """
    with open_consumer(engine, consumer, since) as connection:
        while True:
            page = read_next(connection, consumer)
            if page:
                write("".join(f"{format_change(change)}\n" for change in page))
                advance(connection, consumer, page)
            if is_over(not page):
                return
            if not page:
                time.sleep(POLL_SECONDS)


def format_change(change: Change) -> str:
    """Return a change as one line of JSON."""
    return json.dumps(describe_change(change))


def describe_change(change: Change) -> dict[str, object]:
    """Return a change as consumers and webhooks get it."""
    return {
        "cursor": str(change.cursor),
        "kind": change.kind,
        "product_id": change.product_id,
        "happened_at": change.happened_at.astimezone(UTC).isoformat(),
        "product": change.product,
    }
