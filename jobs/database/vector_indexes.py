"""Choose the HNSW index of a space by its number of vectors: an index of the vectors, or one of their signs.

The graph of the signs needs a quarter of the memory. Searches read it for candidates, and compare their vectors
(`sql/functions/images_by_binary_index.sql`). docs/decisions/large-catalogs.md has the figures.
"""

from dataclasses import dataclass

from sqlalchemy import Connection, text

MAX_VECTOR_ROWS = 1_000_000
"""The maximum size of an index of vectors. The build of a larger one does not fit into the memory of an index build."""

MAINTENANCE_BYTES = (64 * 2**20, 6 * 2**30)
"""Minimum and maximum memory of an index build, unless the server allows more. A build that needs more is slower."""


@dataclass(frozen=True)
class IndexForm:
    """What an index contains. ``expression`` has a place for the dimensions. Searches must use the same expression.

    A build needs ``bytes_per_row`` and ``bytes_per_dimension`` of memory per row.
    """

    expression: str
    links: int
    candidates: int
    bytes_per_row: int
    bytes_per_dimension: float


# The column has no fixed dimensions, but an index needs them.
VECTOR_INDEX = IndexForm("(embedding::halfvec({dimensions})) halfvec_cosine_ops", 16, 64, 1000, 2)
"""An index of the vectors. A build needs 716 bytes per row in addition to the vector, measured, plus a margin."""

BINARY_INDEX = IndexForm("(binary_quantize(embedding)::bit({dimensions})) bit_hamming_ops", 8, 100, 500, 1 / 8)
"""An index of the signs of the vectors. A build needs 460 bytes per row in addition to the signs, measured."""


def choose_form(rows: int) -> IndexForm:
    """Return the form of the index for this number of vectors."""
    return VECTOR_INDEX if rows <= MAX_VECTOR_ROWS else BINARY_INDEX


def has_outgrown_index(connection: Connection, space_id: int) -> bool:
    """Return whether a space has an index of its vectors, but more vectors than such an index should have."""
    # The limit keeps the count short.
    statement = text("""
        SELECT NOT catalog.has_binary_index(:space) AND :rows < (
            SELECT count(*) FROM (SELECT FROM catalog.image_embeddings WHERE space_id = :space LIMIT :rows + 1) counted
        )
    """)
    return bool(connection.scalar(statement, {"space": space_id, "rows": MAX_VECTOR_ROWS}))


def format_index(name: str, table: str, form: IndexForm, dimensions: int, *, concurrently: bool = False) -> str:
    """Return the statement that creates the index. All arguments are inserted as they are."""
    return (
        f"CREATE INDEX {'CONCURRENTLY ' if concurrently else ''}{name} ON catalog.{table} "
        f"USING hnsw ({form.expression.format(dimensions=dimensions)}) "
        f"WITH (m = {form.links:d}, ef_construction = {form.candidates:d})"
    )


def set_build_memory(connection: Connection, form: IndexForm, rows: int, dimensions: int) -> None:
    """Set the memory for index builds until the transaction ends.

    A parallel build allocates all of it as shared memory, so it is only as large as the build needs.
    """
    wanted = round(rows * (form.bytes_per_row + form.bytes_per_dimension * dimensions))
    minimum, maximum = MAINTENANCE_BYTES
    statement = text("""
        SELECT set_config('maintenance_work_mem', least(greatest(:wanted, :minimum), greatest(:maximum, (
            SELECT 1024 * setting::bigint FROM pg_settings WHERE name = 'maintenance_work_mem'
        ))) / 1024 || 'kB', true)
    """)
    connection.execute(statement, {"wanted": wanted, "minimum": minimum, "maximum": maximum})
