"""Queries on vector spaces. Each encoder has one, with its vectors and its index."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, text

from jobs.alternatives import name_alternatives
from jobs.database.promotions import Switch, insert_switch
from jobs.database.records import ISO_8601, read_record, read_records
from jobs.database.vector_indexes import choose_form, format_index, set_build_memory
from jobs.errors import NotFoundError, RefusedError

SpaceState = Literal["building", "live", "retired"]


@dataclass(frozen=True)
class EmbeddingSpace:
    """All vectors of one encoder."""

    space_id: int
    encoder_version_id: int
    dimensions: int
    state: SpaceState

    @property
    def partition(self) -> str:
        """The name of the table with the vectors. Like `index`, it is safe to insert into SQL."""
        return f"image_embeddings_{self.space_id:d}"

    @property
    def index(self) -> str:
        """The name of the HNSW index on the partition, whatever its form."""
        return f"{self.partition}_hnsw"


@dataclass(frozen=True)
class SpaceSummary:
    """A space and its size, including its index. ``vectors`` is None if the space was dropped."""

    space_id: int
    encoder_version_id: int
    dimensions: int
    state: SpaceState
    vectors: int | None
    size_bytes: int
    created_at: str


def open_space(connection: Connection, encoder_version_id: int, dimensions: int) -> int:
    """Return the id of an encoder's space. Create the space if it does not exist or was dropped.

    Creating it blocks writers of ``catalog.images`` until the caller's transaction ends. Searches are not blocked.

    Raises:
        RefusedError: the encoder has a space with other dimensions.
    """
    space = _read_space_of(connection, encoder_version_id)
    if space is None or not _relation_exists(connection, space.partition):
        space = _create_space(connection, encoder_version_id, dimensions)
    if space.dimensions != dimensions:
        raise RefusedError(
            f"encoder {encoder_version_id} has a space of {space.dimensions} dimensions, not {dimensions}: "
            "register the changed encoder as a new model version"
        )
    return space.space_id


def _create_space(connection: Connection, encoder_version_id: int, dimensions: int) -> EmbeddingSpace:
    """Create the space, unless another job has created it in the meantime."""
    lock_spaces(connection)
    connection.execute(
        text("""
            INSERT INTO catalog.embedding_spaces (encoder_version_id, dimensions) VALUES (:encoder, :dimensions)
            ON CONFLICT (encoder_version_id) DO NOTHING
        """),
        {"encoder": encoder_version_id, "dimensions": dimensions},
    )
    space = _read_space_of(connection, encoder_version_id)
    assert space is not None
    if not _relation_exists(connection, space.partition):
        # Create a table and attach it. Creating it as a partition would block readers of all other spaces.
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
    """Index the vectors of a space, unless it has an index. The build blocks writers of the space.

    Building an index is several times faster than inserting rows into an existing one, but takes minutes for a million
    rows. It therefore blocks only this space: a rollback can still switch to another one.
    """
    lock_space(connection, space_id)
    space = read_space(connection, space_id)
    if _relation_exists(connection, space.index):
        return
    count_rows = text("SELECT count(*) FROM catalog.image_embeddings WHERE space_id = :space")
    rows: int = connection.execute(count_rows, {"space": space_id}).scalar_one()
    form = choose_form(rows)
    set_build_memory(connection, form, rows, space.dimensions)
    connection.execute(text(format_index(space.index, space.partition, form, space.dimensions)))


def make_space_live(connection: Connection, space_id: int, report: Mapping[str, Any] | None = None) -> None:
    """Make a space and its encoder live as soon as the caller commits, and retire the space that was live before.

    ``report`` is stored in the row of ``switches``.

    Raises:
        NotFoundError: the space does not exist.
        RefusedError: the space has no index.
    """
    lock_spaces(connection)
    space = read_space(connection, space_id)
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
    """Delete the vectors of a space. Its row in ``embedding_spaces`` stays, because runs refer to it.

    Raises:
        NotFoundError: the space does not exist.
        RefusedError: the space is live.
    """
    lock_spaces(connection)
    space = read_space(connection, space_id)
    if space.state == "live":
        raise RefusedError(f"embedding space {space_id} is live: make another one live before you drop it")
    connection.execute(text(f"DROP TABLE IF EXISTS catalog.{space.partition}"))
    for table in ("vector_codes", "map_points", "maps"):
        connection.execute(text(f"DELETE FROM catalog.{table} WHERE space_id = :space"), {"space": space_id})  # noqa: S608
    _set_state(connection, space, "retired")


def lock_spaces(connection: Connection) -> None:
    """Block other jobs that change spaces until the transaction ends. Reads and writes of vectors are not blocked."""
    connection.execute(text("LOCK TABLE catalog.embedding_spaces IN SHARE ROW EXCLUSIVE MODE"))


def lock_space(connection: Connection, space_id: int) -> None:
    """Block other jobs that change this space until the transaction ends. Inserts of vectors are not blocked."""
    statement = text("SELECT FROM catalog.embedding_spaces WHERE space_id = :space FOR NO KEY UPDATE")
    connection.execute(statement, {"space": space_id})


def read_space(connection: Connection, space_id: int) -> EmbeddingSpace:
    """Return a space by its id.

    Raises:
        NotFoundError: it does not exist.
    """
    statement = text("SELECT * FROM catalog.embedding_spaces WHERE space_id = :space")
    space = read_record(connection.execute(statement, {"space": space_id}), EmbeddingSpace)
    if space is None:
        latest = text("SELECT space_id FROM catalog.embedding_spaces ORDER BY space_id DESC LIMIT 100")
        names = name_alternatives(space_id, connection.execute(latest).scalars())
        raise NotFoundError(f"there is no embedding space {space_id}. {names}")
    return space


def _read_space_of(connection: Connection, encoder_version_id: int) -> EmbeddingSpace | None:
    statement = text("SELECT * FROM catalog.embedding_spaces WHERE encoder_version_id = :encoder")
    return read_record(connection.execute(statement, {"encoder": encoder_version_id}), EmbeddingSpace)


def find_searchable_space(connection: Connection, encoder_version_id: int) -> int | None:
    """Return the id of an encoder's space if it has an index, so it can go live at once. Otherwise return None."""
    space = _read_space_of(connection, encoder_version_id)
    return space.space_id if space and _relation_exists(connection, space.index) else None


def has_space_index(connection: Connection, space_id: int) -> bool:
    """Return whether the vectors of a space are indexed."""
    return _relation_exists(connection, read_space(connection, space_id).index)


def list_spaces(connection: Connection) -> list[SpaceSummary]:
    """List all spaces with their contents, oldest first."""
    rows = connection.execute(
        text("""
            SELECT s.space_id, s.encoder_version_id, s.dimensions, s.state,
                   CASE WHEN p.partition IS NOT NULL THEN coalesce(e.vectors, 0) END AS vectors,
                   coalesce(pg_total_relation_size(p.partition), 0) AS size_bytes,
                   to_char(s.created_at AT TIME ZONE 'UTC', :time_format) AS created_at
            FROM catalog.embedding_spaces s
            LEFT JOIN (SELECT space_id, count(*) AS vectors FROM catalog.image_embeddings GROUP BY space_id) e
                USING (space_id)
            CROSS JOIN LATERAL to_regclass('catalog.image_embeddings_' || s.space_id) AS p (partition)
            ORDER BY s.space_id
        """),
        {"time_format": ISO_8601},
    )
    return list(read_records(rows, SpaceSummary))


def find_space(connection: Connection, encoder_version_id: int) -> int | None:
    """Return the id of an encoder's space, or None if it was never opened."""
    statement = text("SELECT space_id FROM catalog.embedding_spaces WHERE encoder_version_id = :encoder")
    return connection.execute(statement, {"encoder": encoder_version_id}).scalar_one_or_none()


def find_live_space(connection: Connection) -> int | None:
    """Return the id of the live space, or None if none is live yet."""
    statement = text("SELECT space_id FROM catalog.embedding_spaces WHERE state = 'live'")
    return connection.execute(statement).scalar_one_or_none()


def read_live_space(connection: Connection) -> EmbeddingSpace:
    """Return the live space.

    Raises:
        NotFoundError: none is live yet.
    """
    statement = text("SELECT * FROM catalog.embedding_spaces WHERE state = 'live'")
    space = read_record(connection.execute(statement), EmbeddingSpace)
    if space is None:
        raise NotFoundError("no embedding space is live yet: run `catalog ingest` first")
    return space


def _set_state(connection: Connection, space: EmbeddingSpace, state: SpaceState) -> None:
    connection.execute(
        text("UPDATE catalog.embedding_spaces SET state = :state WHERE space_id = :space"),
        {"state": state, "space": space.space_id},
    )


def _relation_exists(connection: Connection, name: str) -> bool:
    found = connection.scalar(text("SELECT to_regclass(:name) IS NOT NULL"), {"name": f"catalog.{name}"})
    return bool(found)


def sample_common_images(connection: Connection, first_space_id: int, second_space_id: int, images: int) -> list[int]:
    """Return a random sample of the images that both spaces contain. Repeated calls return the same images."""
    statement = text("""
        SELECT i.image_id FROM catalog.images i
        WHERE i.deleted_at IS NULL
          AND EXISTS (SELECT FROM catalog.image_embeddings e WHERE e.space_id = :first AND e.image_id = i.image_id)
          AND EXISTS (SELECT FROM catalog.image_embeddings e WHERE e.space_id = :second AND e.image_id = i.image_id)
        ORDER BY md5(i.image_id::text) LIMIT :images
    """)
    parameters = {"first": first_space_id, "second": second_space_id, "images": images}
    return list(connection.execute(statement, parameters).scalars())


def find_neighbors(connection: Connection, space: EmbeddingSpace, image_id: int, k: int) -> list[int]:
    """Return the images in the bucket that are nearest to an image in the space, nearest first, without itself."""
    statement = text("""
        SELECT n.image_id FROM catalog.image_embeddings e
        CROSS JOIN LATERAL catalog.images_by_index(e.embedding, :space, :k, :image) n
        WHERE e.space_id = :space AND e.image_id = :image
        ORDER BY n.similarity DESC, n.image_id
    """)
    return list(connection.execute(statement, {"space": space.space_id, "image": image_id, "k": k}).scalars())
