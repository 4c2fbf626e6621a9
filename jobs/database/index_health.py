"""Measure indexes and tables: how large they are compared with what their rows need, dead rows, and statistics."""

import math
from dataclasses import dataclass

from sqlalchemy import Connection, text

from jobs.database.records import read_record, read_records
from jobs.database.spaces import EmbeddingSpace

MIN_ROWS = 1000
"""Smaller tables are left to autovacuum."""
PAGE_BYTES, PAGE_HEADER_BYTES, LINE_POINTER_BYTES = 8192, 24, 4
BTREE_FILL = 0.9
BTREE_ROW_BYTES = 16
"""The header of an index row, its line pointer, and alignment."""


@dataclass(frozen=True)
class TableHealth:
    """The rows of a table, as Postgres counts them. ``modified`` counts changes since the last ANALYZE.

    A crash resets the counts. Then the table counts as never analyzed.
    """

    name: str
    rows: int
    dead: int
    modified: int
    is_analyzed: bool

    @property
    def dead_share(self) -> float:
        """The share of rows that a VACUUM would remove."""
        return self.dead / max(self.rows + self.dead, 1)

    @property
    def modified_share(self) -> float:
        """The share of rows that the planner's statistics do not reflect."""
        return self.modified / max(self.rows, 1) if self.is_analyzed else 1.0


@dataclass(frozen=True)
class IndexHealth:
    """The size of an index, and the size that it would have if it were built now."""

    name: str
    size_bytes: int
    needed_bytes: int

    @property
    def bloat(self) -> float:
        """How many times more space it takes than it needs."""
        return self.size_bytes / self.needed_bytes


def list_tables(connection: Connection) -> list[TableHealth]:
    """List the tables of the catalog that are not small."""
    statement = text("""
        SELECT s.relname AS name, CAST(greatest(s.n_live_tup, c.reltuples) AS bigint) AS rows, s.n_dead_tup AS dead,
               s.n_mod_since_analyze AS modified,
               coalesce(s.last_analyze, s.last_autoanalyze) IS NOT NULL AS is_analyzed
        FROM pg_stat_user_tables s JOIN pg_class c ON c.oid = s.relid
        WHERE s.schemaname = 'catalog' AND c.relkind = 'r' AND greatest(s.n_live_tup, c.reltuples) >= :rows
        ORDER BY s.relname
    """)
    return list(read_records(connection.execute(statement, {"rows": MIN_ROWS}), TableHealth))


def list_btrees(connection: Connection) -> list[IndexHealth]:
    """List the B-trees of tables that are not small. Those on expressions or a part of a table are left out.

    What they need is estimated from the mean widths of their columns.
    """
    statement = text("""
        SELECT c.relname AS name, pg_relation_size(c.oid) AS size_bytes,
               CAST(ceil(greatest(s.n_live_tup, t.reltuples) * (widths.total + :row_bytes) / :fill / :page + 1)
                    AS bigint) * :page AS needed_bytes
        FROM pg_index i
        JOIN pg_class c ON c.oid = i.indexrelid
        JOIN pg_class t ON t.oid = i.indrelid
        JOIN pg_stat_user_tables s ON s.relid = t.oid
        JOIN pg_am m ON m.oid = c.relam
        CROSS JOIN LATERAL (
            SELECT sum(w.avg_width) AS total, count(*) AS columns
            FROM pg_attribute a
            JOIN pg_stats w ON w.schemaname = s.schemaname AND w.tablename = t.relname AND w.attname = a.attname
            WHERE a.attrelid = t.oid AND a.attnum = ANY (CAST(i.indkey AS smallint[]))
        ) widths
        WHERE s.schemaname = 'catalog' AND t.relkind = 'r' AND m.amname = 'btree' AND i.indisvalid
          AND i.indpred IS NULL AND widths.columns = i.indnatts AND greatest(s.n_live_tup, t.reltuples) >= :rows
        ORDER BY c.relname
    """)
    parameters = {"row_bytes": BTREE_ROW_BYTES, "fill": BTREE_FILL, "page": PAGE_BYTES, "rows": MIN_ROWS}
    return list(read_records(connection.execute(statement, parameters), IndexHealth))


@dataclass(frozen=True)
class _VectorIndex:
    value_type: str
    dimensions: int
    links: int
    size_bytes: int


def measure_vector_index(connection: Connection, space: EmbeddingSpace) -> IndexHealth | None:
    """Measure the HNSW index of a space, if it has one and more than a few vectors."""
    statement = text("""
        SELECT y.typname AS value_type, a.atttypmod AS dimensions,
               coalesce((SELECT CAST(o.option_value AS integer) FROM pg_options_to_table(c.reloptions) o
                         WHERE o.option_name = 'm'), 16) AS links,
               pg_relation_size(c.oid) AS size_bytes
        FROM pg_index i
        JOIN pg_class c ON c.oid = i.indexrelid
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = 1
        JOIN pg_type y ON y.oid = a.atttypid
        WHERE c.oid = to_regclass(:index) AND i.indisvalid
    """)
    index = read_record(connection.execute(statement, {"index": f"catalog.{space.index}"}), _VectorIndex)
    # Exact, because the statistics of Postgres are lost in a crash, and a rebuild is expensive.
    rows: int = connection.execute(text(f"SELECT count(*) FROM catalog.{space.partition}")).scalar_one()  # noqa: S608
    if index is None or rows < MIN_ROWS:
        return None
    needed = compute_hnsw_bytes(rows, index.value_type, index.dimensions, index.links)
    return IndexHealth(space.index, index.size_bytes, needed)


def compute_hnsw_bytes(rows: int, value_type: str, dimensions: int, links: int) -> int:
    """Return the size of a new HNSW index of pgvector, with ``m`` = ``links``, on a halfvec, vector or bit column.

    Each row has an element with its value and a list of neighbors, which share a page: links to twice ``m`` rows in the
    lowest layer, and to ``m`` in each further one, which 1 of ``m`` rows reaches. A page holds whole pairs only.
    """
    value = 8 + {"halfvec": 2 * dimensions, "vector": 4 * dimensions, "bit": math.ceil(dimensions / 8)}[value_type]
    element, neighbors = _align(72 + value), _align(4 + 6 * 2 * links)
    more_layers = 6 * links / (links - 1)
    pair = element + neighbors + more_layers + 2 * LINE_POINTER_BYTES
    usable = PAGE_BYTES - PAGE_HEADER_BYTES - 8
    return PAGE_BYTES * (1 + math.ceil(rows / max(usable // pair, 1)))


def _align(size: int) -> int:
    return math.ceil(size / 8) * 8
