"""Moments that tests wait for: somebody stands before a lock."""

import time
from collections.abc import Callable

from tests.shop import Shop

LONGEST_SECONDS = 120


def count_waiting(shop: Shop, table: str) -> int:
    """How many wait for a lock on a table."""
    ((waiting,),) = shop.query(
        "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = CAST(:table AS regclass)", table=table
    )
    return int(waiting)


def wait_until(is_time: Callable[[], bool]) -> None:
    """Look again and again, and fail when it takes too long."""
    deadline = time.monotonic() + LONGEST_SECONDS
    while not is_time():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.01)
