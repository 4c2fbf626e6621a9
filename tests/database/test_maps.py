"""Queries on the map read only what it shows, however large the catalog is."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from sqlalchemy import Connection, event, text
from sqlalchemy.engine.interfaces import DBAPICursor, ExecutionContext

from fixtures.catalog_rows import label_image
from jobs.database.maps import MapSample, read_map_drawing, read_map_version, replace_map
from jobs.database.spaces import read_live_space
from tests.database.conftest import SmallCatalog

LABELS = 3000


def list_scans(plan: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """List the nodes of a plan that read a table."""
    if "Relation Name" in plan:
        yield plan
    for child in plan.get("Plans", ()):
        yield from list_scans(child)


def test_labels_of_images_that_are_not_on_the_map_are_not_read(connection: Connection, catalog: SmallCatalog) -> None:
    shown, other = catalog.image_ids["hat"], catalog.image_ids["boot"]
    space = read_live_space(connection)
    assert space is not None
    [embedded_at] = connection.execute(
        text("SELECT embedded_at FROM catalog.image_embeddings WHERE image_id = :id"), {"id": shown}
    ).scalars()
    replace_map(connection, space.space_id, MapSample(np.array([shown]), (embedded_at,), np.zeros((1, 2))), 0)
    for category in ("shoes", "dress"):
        label_image(connection, shown, category)
    connection.execute(text("ALTER TABLE catalog.labels DISABLE TRIGGER labels_win_at_once"))
    connection.execute(
        text(
            "INSERT INTO catalog.labels (image_id, category, labeled_by) SELECT :id, 'x', '' "
            "FROM generate_series(1, :n)"
        ),
        {"id": other, "n": LABELS},
    )
    connection.execute(text("ANALYZE catalog.labels"))
    statements: list[tuple[str, Any]] = []

    def record(
        _: Connection, __: DBAPICursor, statement: str, parameters: Any, ___: ExecutionContext, ____: bool
    ) -> None:
        statements.append((statement, parameters))

    event.listen(connection, "before_cursor_execute", record)
    version = read_map_version(connection)
    assert version is not None
    drawing = read_map_drawing(connection, version)
    event.remove(connection, "before_cursor_execute", record)
    assert (drawing.categories, drawing.is_labeled.tolist()) == (("dress",), [True])
    read = 0
    for statement, parameters in statements:
        [[plan]] = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", parameters).scalars()
        for scan in list_scans(plan["Plan"]):
            if scan["Relation Name"] == "labels":
                read += scan["Actual Rows"] * scan["Actual Loops"]
    assert 0 < read < 10
