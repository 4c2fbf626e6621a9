"""Call the search functions, and expect their errors."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import psycopg2
import pytest
from sqlalchemy import Connection, Row, exc, text

from jobs.database.migrations import SQL_FOLDER
from jobs.database.spaces import read_live_space
from jobs.database.vector_codes import renew_vector_codes


def find_nearest(
    connection: Connection, vector: np.ndarray | str | None, space_id: int | None, k: int | None, category: str | None
) -> list[Row[Any]]:
    """Return the rows of ``catalog.nearest_images``."""
    statement = text("SELECT * FROM catalog.nearest_images(CAST(:vector AS halfvec), :space, :k, :category)")
    literal = str(vector.tolist()) if isinstance(vector, np.ndarray) else vector
    parameters = {"vector": literal, "space": space_id, "k": k, "category": category}
    return list(connection.execute(statement, parameters).all())


@contextmanager
def refused(connection: Connection, sqlstate: str, message: str, hint: str = "") -> Iterator[list[str]]:
    """Expect that Postgres refuses the query, and collect its hint. The transaction continues."""
    hints: list[str] = []
    with pytest.raises(exc.DBAPIError, match=message) as caught, connection.begin_nested():
        yield hints
    error = caught.value.orig
    assert isinstance(error, psycopg2.Error)
    assert error.pgcode == sqlstate
    hints.append(error.diag.message_hint or "")
    assert hints[0]
    assert hint in hints[0]


ROUTES = ["few candidates", "near codes or index", "near codes or index, then all"]


def take_route(connection: Connection, route: str) -> None:
    """Make the ranking use codes, as in a large catalog after a run is published."""
    if route == "few candidates":
        return
    renew_vector_codes(connection, read_live_space(connection).space_id)
    redefinitions = [("rank_images", "few constant integer := 5000", "few constant integer := 0")]
    if route == "near codes or index, then all":
        redefinitions += [
            ("images_by_code", "LIMIT $4", "LIMIT $4 * 0 + 1"),
            ("images_by_index", "max_scan_tuples = 20000", "max_scan_tuples = 1"),
        ]
    for function, present, wanted in redefinitions:
        definition = (SQL_FOLDER / "functions" / f"{function}.sql").read_text()
        assert present in definition
        changed = definition.replace(present, wanted)
        connection.exec_driver_sql(changed, execution_options={"no_parameters": True})
    connection.execute(text("SET LOCAL enable_seqscan = off"))
