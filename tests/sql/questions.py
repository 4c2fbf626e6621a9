"""Asking the search functions, and how they refuse."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import psycopg2
import pytest
from sqlalchemy import Connection, Row, exc, text

from jobs.database.migrations import SQL_FOLDER


def find_nearest(
    connection: Connection, vector: np.ndarray | str | None, space_id: int | None, k: int | None, category: str | None
) -> list[Row[Any]]:
    """The rows of ``catalog.nearest_images``."""
    statement = text("SELECT * FROM catalog.nearest_images(CAST(:vector AS halfvec), :space, :k, :category)")
    literal = str(vector.tolist()) if isinstance(vector, np.ndarray) else vector
    parameters = {"vector": literal, "space": space_id, "k": k, "category": category}
    return list(connection.execute(statement, parameters).all())


@contextmanager
def refused(connection: Connection, sqlstate: str, message: str, hint: str = "") -> Iterator[list[str]]:
    """Expect that Postgres refuses the question, with a hint, which is left in the list; the transaction goes on."""
    hints: list[str] = []
    with pytest.raises(exc.DBAPIError, match=message) as caught, connection.begin_nested():
        yield hints
    error = caught.value.orig
    assert isinstance(error, psycopg2.Error)
    assert error.pgcode == sqlstate
    hints.append(error.diag.message_hint or "")
    assert hints[0]
    assert hint in hints[0]


ROUTES = ["few candidates", "index", "index, then all"]


def take_route(connection: Connection, route: str) -> None:
    """Have the ranking of a small catalog go the way that it goes in a large one."""
    if route == "few candidates":
        return
    definition = (SQL_FOLDER / "functions" / "rank_images.sql").read_text()
    changes = {"few constant integer := 20000": "few constant integer := 0"}
    if route == "index, then all":
        changes |= {
            "max_scan_tuples = 20000": "max_scan_tuples = 1",
            "max_scan_tuples', '1000'": "max_scan_tuples', '1'",
        }
    for present, wanted in changes.items():
        assert present in definition
        definition = definition.replace(present, wanted)
    connection.exec_driver_sql(definition, execution_options={"no_parameters": True})
    connection.execute(text("SET LOCAL enable_seqscan = off"))
