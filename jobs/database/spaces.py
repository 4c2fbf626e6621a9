"""Vector spaces: one for each encoder, with its vectors and its index."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, Row, text

from jobs.database.promotions import Switch, insert_switch
from jobs.errors import NotFoundError, RefusedError

SpaceState = Literal["building", "live", "retired"]
HNSW_LINKS = 16
HNSW_CANDIDATES = 64
MAINTENANCE_BYTES_PER_ROW = 1000
"""What an HNSW build holds in memory for each row beside its vector: 716 as measured, and some room."""

MAINTENANCE_BYTES = (64 * 2**20, 2 * 2**30)
"""The least and the most memory that an index build asks for; one that outgrows it goes on more slowly."""


@dataclass(frozen=True)
class EmbeddingSpace:
    """All vectors of one encoder."""

    space_id: int
    encoder_version_id: int
    dimensions: int
    state: SpaceState

    @property
    def partition(self) -> str:
        """The table that holds the vectors; safe to put into SQL, as is `index`."""
        return f"image_embeddings_{self.space_id:d}"

    @property
    def index(self) -> str:
        """The HNSW index of the partition."""
        return f"{self.partition}_hnsw"


@dataclass(frozen=True)
class SpaceSummary:
    """A space and what it holds, its index included; ``vectors`` is None once it was dropped."""

    space_id: int
    encoder_version_id: int
    dimensions: int
    state: SpaceState
    vectors: int | None
    size_bytes: int
    created_at: str


def open_space(connection: Connection, encoder_version_id: int, dimensions: int) -> int:
    """Make sure that an encoder has a space to fill, and return its id; one that was dropped is built anew.

    A new space keeps others from writing to ``catalog.images`` until the caller's transaction ends; searches go on.

    Raises:
        PermanentError: the encoder has a space of other dimensions.
    """
    space = _read_space(connection, encoder_version_id=encoder_version_id)
    if space is None or not _relation_exists(connection, space.partition):
        space = _create_space(connection, encoder_version_id, dimensions)
    if space.dimensions != dimensions:
        raise RefusedError(
            f"encoder {encoder_version_id} has a space of {space.dimensions} dimensions, not {dimensions}: "
            "register the changed encoder as a new model version"
        )
    return space.space_id


def _create_space(connection: Connection, encoder_version_id: int, dimensions: int) -> EmbeddingSpace:
    """Create what another job has not created by now."""
    lock_spaces(connection)
    connection.execute(
        text("""
            INSERT INTO catalog.embedding_spaces (encoder_version_id, dimensions) VALUES (:encoder, :dimensions)
            ON CONFLICT (encoder_version_id) DO NOTHING
        """),
        {"encoder": encoder_version_id, "dimensions": dimensions},
    )
    space = _require_space(connection, encoder_version_id=encoder_version_id)
    if not _relation_exists(connection, space.partition):
        # Attached, since a table that is created as a partition locks out all who read the others.
        connection.execute(
            text(
                f"CREATE TABLE catalog.{space.partition} "
                "(LIKE catalog.image_embeddings INCLUDING DEFAULTS INCLUDING STORAGE, "
                f"CHECK (vector_dims(embedding) = {space.dimensions:d}))"
            )
        )
        connection.execute(
            text(
                f"ALTER TABLE catalog.image_embeddings ATTACH PARTITION catalog.{space.partition} "
                f"FOR VALUES IN ({space.space_id:d})"
            )
        )
        _set_state(connection, space, "building")
    return space


def create_space_index(connection: Connection, space_id: int) -> None:
    """Index the vectors of a space, unless they are; writers of the space wait meanwhile.

    The build runs at thousands of rows a second, several times faster than adding rows to a finished index. A million
    rows take minutes all the same, so that other spaces can be switched during it, as a rollback does.
    """
    lock_space(connection, space_id)
    space = _require_space(connection, space_id=space_id)
    if _relation_exists(connection, space.index):
        return
    count_rows = text("SELECT count(*) FROM catalog.image_embeddings WHERE space_id = :space")
    rows: int = connection.execute(count_rows, {"space": space_id}).scalar_one()
    _set_maintenance_memory(connection, rows * (2 * space.dimensions + MAINTENANCE_BYTES_PER_ROW))
    connection.execute(
        text(
            f"CREATE INDEX {space.index} ON catalog.{space.partition} "
            # The column takes vectors of any length, an index needs one: searches repeat this expression.
            f"USING hnsw ((embedding::halfvec({space.dimensions:d})) halfvec_cosine_ops) "
            f"WITH (m = {HNSW_LINKS:d}, ef_construction = {HNSW_CANDIDATES:d})"
        )
    )


def make_space_live(connection: Connection, space_id: int, report: Mapping[str, Any] | None = None) -> None:
    """Have every search answer from this space from the caller's commit on; the space before it is retired.

    Its encoder becomes the live one by that, with ``report`` in the row of ``switches``.

    Raises:
        PermanentError: the space does not exist or has no index.
    """
    lock_spaces(connection)
    space = _require_space(connection, space_id=space_id)
    if not _relation_exists(connection, space.index):
        raise RefusedError(f"embedding space {space_id} has no index yet: call create_space_index first")
    if space.state == "live":
        return
    retire = text("""
        UPDATE catalog.embedding_spaces SET state = 'retired' WHERE state = 'live' RETURNING encoder_version_id
    """)
    replaced = connection.execute(retire).scalar_one_or_none()
    _set_state(connection, space, "live")
    insert_switch(connection, Switch("encoder", space.encoder_version_id, replaced), report)


def drop_space(connection: Connection, space_id: int) -> None:
    """Delete the vectors of a space at once; its row stays, since runs refer to it.

    Raises:
        PermanentError: the space does not exist or is live.
    """
    lock_spaces(connection)
    space = _require_space(connection, space_id=space_id)
    if space.state == "live":
        raise RefusedError(f"embedding space {space_id} is live: make another one live before you drop it")
    connection.execute(text(f"DROP TABLE IF EXISTS catalog.{space.partition}"))
    connection.execute(text("DELETE FROM catalog.vector_codes WHERE space_id = :space"), {"space": space_id})
    _set_state(connection, space, "retired")


def lock_spaces(connection: Connection) -> None:
    """One job at a time changes spaces; those that read them or write vectors go on."""
    connection.execute(text("LOCK TABLE catalog.embedding_spaces IN SHARE ROW EXCLUSIVE MODE"))


def lock_space(connection: Connection, space_id: int) -> None:
    """One job at a time changes this space; those that refer to its row go on."""
    statement = text("SELECT FROM catalog.embedding_spaces WHERE space_id = :space FOR NO KEY UPDATE")
    connection.execute(statement, {"space": space_id})


def read_space(connection: Connection, space_id: int) -> EmbeddingSpace:
    """A space by its id.

    Raises:
        PermanentError: there is none.
    """
    return _require_space(connection, space_id=space_id)


def find_searchable_space(connection: Connection, encoder_version_id: int) -> int | None:
    """The id of an encoder's space if it still has its vectors and its index, so that it can go live at once."""
    space = _read_space(connection, encoder_version_id=encoder_version_id)
    return space.space_id if space and _relation_exists(connection, space.index) else None


def has_space_index(connection: Connection, space_id: int) -> bool:
    """Whether the vectors of a space are indexed."""
    return _relation_exists(connection, _require_space(connection, space_id=space_id).index)


def list_spaces(connection: Connection) -> list[SpaceSummary]:
    """All spaces, the oldest first, with what they hold."""
    rows = connection.execute(text("SELECT * FROM catalog.embedding_spaces ORDER BY space_id")).all()
    summaries = []
    for row in rows:
        space = _embedding_space(row)
        vectors, size_bytes = _measure_partition(connection, space)
        summaries.append(
            SpaceSummary(
                space.space_id,
                space.encoder_version_id,
                space.dimensions,
                space.state,
                vectors,
                size_bytes,
                row.created_at.isoformat(timespec="seconds"),
            )
        )
    return summaries


def _measure_partition(connection: Connection, space: EmbeddingSpace) -> tuple[int | None, int]:
    if not _relation_exists(connection, space.partition):
        return None, 0
    statement = text("""
        SELECT count(*), pg_total_relation_size(CAST(:partition AS regclass))
        FROM catalog.image_embeddings WHERE space_id = :space
    """)
    vectors, size_bytes = connection.execute(
        statement, {"partition": f"catalog.{space.partition}", "space": space.space_id}
    ).one()
    return vectors, size_bytes


def find_space(connection: Connection, encoder_version_id: int) -> int | None:
    """The id of an encoder's space, or None if it was never opened."""
    statement = text("SELECT space_id FROM catalog.embedding_spaces WHERE encoder_version_id = :encoder")
    return connection.execute(statement, {"encoder": encoder_version_id}).scalar_one_or_none()


def find_live_space(connection: Connection) -> int | None:
    """The id of the space that searches answer from, or None before the first."""
    statement = text("SELECT space_id FROM catalog.embedding_spaces WHERE state = 'live'")
    return connection.execute(statement).scalar_one_or_none()


def read_live_space(connection: Connection) -> EmbeddingSpace:
    """The space that searches answer from.

    Raises:
        PermanentError: none is live yet.
    """
    row = connection.execute(text("SELECT * FROM catalog.embedding_spaces WHERE state = 'live'")).one_or_none()
    if row is None:
        raise NotFoundError("no embedding space is live yet: run `python -m jobs ingest` first")
    return _embedding_space(row)


def _require_space(
    connection: Connection, *, space_id: int | None = None, encoder_version_id: int | None = None
) -> EmbeddingSpace:
    space = _read_space(connection, space_id=space_id, encoder_version_id=encoder_version_id)
    if space is None:
        raise NotFoundError(f"there is no embedding space {space_id}")
    return space


def _read_space(
    connection: Connection, *, space_id: int | None = None, encoder_version_id: int | None = None
) -> EmbeddingSpace | None:
    statement = text("SELECT * FROM catalog.embedding_spaces WHERE space_id = :space OR encoder_version_id = :encoder")
    row = connection.execute(statement, {"space": space_id, "encoder": encoder_version_id}).one_or_none()
    return _embedding_space(row) if row else None


def _embedding_space(row: Row[Any]) -> EmbeddingSpace:
    return EmbeddingSpace(row.space_id, row.encoder_version_id, row.dimensions, row.state)


def _set_state(connection: Connection, space: EmbeddingSpace, state: SpaceState) -> None:
    connection.execute(
        text("UPDATE catalog.embedding_spaces SET state = :state WHERE space_id = :space"),
        {"state": state, "space": space.space_id},
    )


def _relation_exists(connection: Connection, name: str) -> bool:
    found = connection.scalar(text("SELECT to_regclass(:name) IS NOT NULL"), {"name": f"catalog.{name}"})
    return bool(found)


def _set_maintenance_memory(connection: Connection, wanted_bytes: int) -> None:
    """Until the transaction ends; a parallel build takes the whole of it as shared memory, needed or not."""
    least, most = MAINTENANCE_BYTES
    kilobytes = min(max(wanted_bytes, least), most) // 1024
    connection.execute(text("SELECT set_config('maintenance_work_mem', :value, true)"), {"value": f"{kilobytes}kB"})


def widen_index_search(connection: Connection) -> None:
    """Make index searches of this transaction as exact as `catalog.images_by_index`, even among deleted images."""
    connection.execute(text("SET LOCAL hnsw.iterative_scan = strict_order"))
    connection.execute(text("SET LOCAL hnsw.ef_search = 400"))


def sample_common_images(connection: Connection, first_space_id: int, second_space_id: int, images: int) -> list[int]:
    """So many images of those that both spaces hold, at random but always the same."""
    statement = text("""
        SELECT i.image_id FROM catalog.images i
        WHERE i.deleted_at IS NULL
          AND EXISTS (SELECT FROM catalog.image_embeddings e WHERE e.space_id = :first AND e.image_id = i.image_id)
          AND EXISTS (SELECT FROM catalog.image_embeddings e WHERE e.space_id = :second AND e.image_id = i.image_id)
        ORDER BY md5(i.image_id::text) LIMIT :images
    """)
    parameters = {"first": first_space_id, "second": second_space_id, "images": images}
    return list(connection.execute(statement, parameters).scalars())


def find_neighbours(connection: Connection, space: EmbeddingSpace, image_id: int, k: int) -> list[int]:
    """The nearest images in the bucket to one that the space holds, nearest first, without itself."""
    parameters = {"space": space.space_id, "image": image_id, "dimensions": space.dimensions, "k": k}
    # The index is used only if space and dimensions are constants. The driver writes them into the statement.
    statement = text("""
        SELECT e.image_id FROM catalog.image_embeddings e
        WHERE e.space_id = :space AND e.image_id <> :image AND catalog.is_answer(e.image_id, NULL, false)
        ORDER BY CAST(e.embedding AS halfvec(:dimensions)) <=> CAST((
            SELECT embedding FROM catalog.image_embeddings WHERE space_id = :space AND image_id = :image
        ) AS halfvec(:dimensions))
        LIMIT :k
    """)
    return list(connection.execute(statement, parameters).scalars())
