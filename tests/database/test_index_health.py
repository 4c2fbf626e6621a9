"""The size that an index needs is the size of a new one."""

import pytest
from sqlalchemy import Connection, text

from jobs.database.index_health import compute_hnsw_bytes

ROWS = 1200


@pytest.mark.parametrize(
    ("value_type", "dimensions", "links", "operators"),
    [("halfvec", 12, 8, "halfvec_l2_ops"), ("halfvec", 512, 16, "halfvec_l2_ops"), ("bit", 256, 16, "bit_hamming_ops")],
)
def test_the_needed_size_is_that_of_a_new_index(
    connection: Connection, value_type: str, dimensions: int, links: int, operators: str
) -> None:
    one = "random()::text" if value_type == "halfvec" else "round(random())::text"
    values = f"string_agg({one}, '{',' if value_type == 'halfvec' else ''}')"
    value = f"('[' || {values} || ']')" if value_type == "halfvec" else values
    connection.execute(
        text(f"""
            CREATE TABLE catalog.measured AS
            SELECT n, CAST({value} AS {value_type}({dimensions})) AS v
            FROM generate_series(1, {ROWS}) n, generate_series(1, {dimensions}) d GROUP BY n
        """)
    )
    # The size does not depend on the candidates, which cost most of the time.
    options = f"m = {links}, ef_construction = {2 * links}"
    connection.execute(text(f"CREATE INDEX measured_v ON catalog.measured USING hnsw (v {operators}) WITH ({options})"))
    size = connection.scalar(text("SELECT pg_relation_size('catalog.measured_v')"))
    assert compute_hnsw_bytes(ROWS, value_type, dimensions, links) == pytest.approx(size, rel=0.04)
