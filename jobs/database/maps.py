"""Queries on the map of the catalog: a random sample of the live space, projected to two dimensions."""

from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Select, func, literal_column, select, text

from jobs.database.images import select_random_images
from jobs.database.records import read_record
from jobs.database.spaces import EmbeddingSpace, lock_space
from jobs.database.tables import image_embeddings, images, map_points

MAX_POINTS = 100_000
MAX_NUMBERS = 100_000_000
"""Maximum size of the sample in numbers of its vectors, which need 4 bytes each in memory."""
BATCH = 5_000
HALFVEC_HEADER_BYTES = 4
MAX_COORDINATE = 327.67
"""A coordinate in hundredths fits into two bytes, in which the page receives it."""


@dataclass(frozen=True)
class DrawnMap:
    """The stored map of a space. ``added_points`` counts those added since all points were last arranged."""

    space_id: int
    added_points: int
    drawn_at: datetime


@dataclass(frozen=True)
class MapSample:
    """The images to place on a map, by id, with the times at which their vectors were computed.

    ``positions`` [n, 2] are those of the stored map. They are NaN for an image that is new or has another vector.
    """

    image_ids: NDArray[np.int64]
    embedded_at: tuple[datetime, ...]
    positions: NDArray[np.float64]

    @property
    def is_placed(self) -> NDArray[np.bool_]:
        """Which images have a position, [n]."""
        return ~np.isnan(self.positions[:, 0])


def read_map(connection: Connection, space_id: int) -> DrawnMap | None:
    """Return the stored map of a space, or None if it has none."""
    statement = text("SELECT * FROM catalog.maps WHERE space_id = :space")
    return read_record(connection.execute(statement, {"space": space_id}), DrawnMap)


def count_map_points(connection: Connection, space_id: int) -> int:
    """Return the number of points on the stored map of a space."""
    statement = text("SELECT count(*) FROM catalog.map_points WHERE space_id = :space")
    points: int = connection.execute(statement, {"space": space_id}).scalar_one()
    return points


def read_map_sample(connection: Connection, space: EmbeddingSpace) -> MapSample:
    """Return a random sample of the images with a vector in a space. Images stay in it from call to call."""
    e, m = image_embeddings, map_points.alias("m")
    is_placed = (m.c.space_id == space.space_id) & (m.c.image_id == e.c.image_id) & (m.c.embedded_at == e.c.embedded_at)
    statement = select_random_images(
        space.encoder_version_id,
        min(MAX_POINTS, MAX_NUMBERS // space.dimensions),
        e.c.image_id,
        e.c.embedded_at,
        literal_column("m.position[0]").label("x"),
        literal_column("m.position[1]").label("y"),
        source=images.join(e, e.c.image_id == images.c.image_id).outerjoin(m, is_placed),
        where=e.c.space_id == space.space_id,
    )
    rows = sorted(connection.execute(statement), key=lambda row: row.image_id)
    return MapSample(
        np.array([row.image_id for row in rows], np.int64),
        tuple(row.embedded_at for row in rows),
        np.array([(row.x, row.y) for row in rows], np.float64).reshape(-1, 2),
    )


def read_vectors(connection: Connection, space: EmbeddingSpace, image_ids: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the vectors of images in a space, [n, dimensions], in the order of ``image_ids``, which ascend."""
    vectors = np.empty((len(image_ids), space.dimensions), np.float32)
    vector = func.halfvec_send(image_embeddings.c.embedding)
    for start in range(0, len(image_ids), BATCH):
        part = image_ids[start : start + BATCH].tolist()
        is_wanted = (image_embeddings.c.space_id == space.space_id) & image_embeddings.c.image_id.in_(part)
        rows = connection.execute(select(vector).where(is_wanted).order_by(image_embeddings.c.image_id)).scalars()
        content = b"".join(bytes(row)[HALFVEC_HEADER_BYTES:] for row in rows)
        vectors[start : start + len(part)] = np.frombuffer(content, ">f2").reshape(len(part), -1)
    return vectors


def replace_map(connection: Connection, space_id: int, sample: MapSample, added_points: int) -> None:
    """Replace the map of a space. Readers see the old or the new one."""
    lock_space(connection, space_id)
    parameters: dict[str, Any] = {"space": space_id, "added": added_points}
    connection.execute(text("DELETE FROM catalog.map_points WHERE space_id = :space"), parameters)
    connection.execute(
        text("""
            INSERT INTO catalog.maps (space_id, added_points) VALUES (:space, :added)
            ON CONFLICT (space_id) DO UPDATE SET added_points = excluded.added_points, drawn_at = excluded.drawn_at
        """),
        parameters,
    )
    insert = text("""
        INSERT INTO catalog.map_points (space_id, image_id, position, embedded_at)
        SELECT :space, image_id, point(x, y), embedded_at
        FROM unnest(CAST(:ids AS bigint[]), CAST(:xs AS float8[]), CAST(:ys AS float8[]), CAST(:times AS timestamptz[]))
            AS p (image_id, x, y, embedded_at)
    """)
    positions = np.clip(sample.positions.round(2), -MAX_COORDINATE, MAX_COORDINATE)
    for start in range(0, len(sample.image_ids), BATCH):
        part = slice(start, start + BATCH)
        xs, ys = positions[part].T.tolist()
        ids, times = sample.image_ids[part].tolist(), list(sample.embedded_at[part])
        connection.execute(insert, {"space": space_id, "ids": ids, "xs": xs, "ys": ys, "times": times})


@dataclass(frozen=True)
class MapVersion:
    """What a drawing of a map depends on. If none of it has changed, the drawing is the same."""

    space_id: int
    drawn_at: datetime
    classifier_version_id: int | None
    latest_run: datetime | None
    latest_label: int | None
    latest_undo: datetime | None


def read_map_version(connection: Connection) -> MapVersion | None:
    """Return the version of the live space's map, or None if there is no map."""
    statement = text("""
        SELECT space_id, drawn_at,
               (SELECT model_version_id FROM catalog.live_models WHERE kind = 'classifier') AS classifier_version_id,
               (SELECT max(greatest(started_at, finished_at)) FROM (
                   SELECT started_at, finished_at FROM catalog.tagging_runs ORDER BY started_at DESC LIMIT 100
               ) r) AS latest_run,
               (SELECT max(label_id) FROM catalog.labels) AS latest_label,
               (SELECT max(undone_at) FROM catalog.reviews) AS latest_undo
        FROM catalog.maps JOIN catalog.embedding_spaces USING (space_id) WHERE state = 'live'
    """)
    return read_record(connection.execute(statement), MapVersion)


@dataclass(frozen=True)
class MapDrawing:
    """The points of a map by image id, one array entry each.

    ``positions`` [n, 2] are in hundredths. ``category`` is an index into ``categories``, which are the most frequent
    first, or -1 without a tag. ``confidence`` is from 0 to 1, NaN without a tag. A label has confidence 1.
    """

    image_ids: NDArray[np.int64]
    positions: NDArray[np.int16]
    categories: tuple[str, ...]
    category: NDArray[np.int16]
    confidence: NDArray[np.float32]
    is_labeled: NDArray[np.bool_]


def read_map_drawing(connection: Connection, version: MapVersion) -> MapDrawing:
    """Return the images on a map that are in the bucket, with their current tags."""
    statement = text("""
        SELECT p.image_id, p.position[0] AS x, p.position[1] AS y, coalesce(l.category, t.category) AS category,
               CASE WHEN l.category IS NULL THEN t.confidence ELSE 1 END AS confidence,
               l.category IS NOT NULL AS is_labeled
        FROM catalog.map_points p
        JOIN catalog.images i USING (image_id)
        LEFT JOIN catalog.image_tags t ON t.image_id = p.image_id AND t.classifier_version_id = :classifier
        LEFT JOIN LATERAL (
            SELECT category FROM catalog.labels WHERE image_id = p.image_id ORDER BY label_id DESC LIMIT 1
        ) l ON true
        WHERE p.space_id = :space AND i.deleted_at IS NULL
        ORDER BY p.image_id
    """)
    parameters = {"space": version.space_id, "classifier": version.classifier_version_id}
    rows = connection.execute(statement, parameters).all()
    counts = Counter(row.category for row in rows if row.category is not None)
    categories = tuple(sorted(counts, key=lambda category: (-counts[category], category)))
    number = {category: index for index, category in enumerate(categories)} | {None: -1}
    return MapDrawing(
        np.array([row.image_id for row in rows], np.int64),
        np.array([(100 * row.x, 100 * row.y) for row in rows]).reshape(-1, 2).round().astype(np.int16),
        categories,
        np.array([number[row.category] for row in rows], np.int16),
        np.array([row.confidence for row in rows], np.float32),
        np.array([row.is_labeled for row in rows], np.bool_),
    )


def select_image_ids_in_area(area: str) -> Select[tuple[int]]:
    """Select the images on the map of the live space whose points lie in a polygon, given as "x,y;x,y;..."."""
    polygon = ",".join(f"({corner})" for corner in area.split(";"))
    is_inside = text("""
        position <@ CAST(:polygon AS polygon)
        AND space_id = (SELECT space_id FROM catalog.embedding_spaces WHERE state = 'live')
    """)
    return select(map_points.c.image_id).where(is_inside.bindparams(polygon=polygon))
