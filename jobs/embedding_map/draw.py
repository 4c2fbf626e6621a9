"""Draw the map of the catalog: place a random sample of the live space's images in the plane, and store it."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from sqlalchemy import Engine

from jobs.database.maps import MapSample, count_map_points, read_map, read_map_sample, read_vectors, replace_map
from jobs.database.spaces import find_live_space, read_space
from jobs.progress import Progress, open_progress, show_progress

log = logging.getLogger(__name__)

MAX_ADDED_SHARE = 0.1
"""If more points than this were added since all points were arranged, all are arranged again."""
MIN_KEPT_SHARE = 0.5
"""If fewer points than this have a position, the arrangement does not start from the old one."""

MapState = Literal["no vectors", "unchanged", "extended", "arranged"]


@dataclass(frozen=True)
class MapReport:
    """What a call of `draw_map` did. ``added`` counts the points that the stored map did not have."""

    state: MapState
    space_id: int | None
    points: int
    added: int
    seconds: float


def draw_map(engine: Engine, run_id: str | None = None) -> MapReport:
    """Draw the map of the live space. A map that still has the same vectors stays as it is.

    A few new images are placed next to their nearest neighbors, and no other point moves. Otherwise all points are
    arranged again, starting from their positions.
    """
    started = time.monotonic()
    with open_progress(engine, run_id, "draw_map") if run_id else show_progress("draw_map") as progress:
        report = _draw(engine, progress, lambda: round(time.monotonic() - started, 1))
    log.info("map: %s", report)
    return report


def try_to_draw_map(engine: Engine, run_id: str) -> None:
    """Draw the map after a run. A failure is only logged, because the results of the run are stored."""
    try:
        draw_map(engine, run_id)
    except Exception:
        log.exception("the map was not drawn and the old one stays. To try again, run `catalog map`")


def _draw(engine: Engine, progress: Progress, clock: Callable[[], float]) -> MapReport:
    progress.report("reading vectors")
    # One snapshot, so times and vectors belong together.
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
        space_id = find_live_space(connection)
        if space_id is None:
            return MapReport("no vectors", None, 0, 0, clock())
        space, stored = read_space(connection, space_id), read_map(connection, space_id)
        sample = read_map_sample(connection, space)
        points = len(sample.image_ids)
        added = points - int(sample.is_placed.sum())
        if not points:
            return MapReport("no vectors", space_id, 0, 0, clock())
        if stored and not added and count_map_points(connection, space_id) == points:
            return MapReport("unchanged", space_id, points, 0, clock())
        vectors = read_vectors(connection, space, sample.image_ids)
    added_before = stored.added_points if stored else 0
    is_extension = added_before + added <= MAX_ADDED_SHARE * points
    # Without new points, some have left the sample, and the others stay where they are.
    arranged = _place(sample, vectors, is_extension, progress) if added else sample
    with engine.begin() as connection:
        replace_map(connection, space.space_id, arranged, added_before + added if is_extension else 0)
    return MapReport("extended" if is_extension else "arranged", space_id, points, added, clock())


def _place(sample: MapSample, vectors: np.ndarray, is_extension: bool, progress: Progress) -> MapSample:
    """Return the sample with a position for each image."""
    # Imported here, because scipy and scikit-learn take a second, and most calls find an unchanged map.
    from jobs.embedding_map.projection import place_near_neighbors, project, reduce_vectors

    progress.report("searching neighbors")
    reduced = reduce_vectors(vectors)
    start = None
    if sample.is_placed.mean() >= MIN_KEPT_SHARE:
        start = place_near_neighbors(reduced, sample.positions, sample.is_placed)
    if is_extension and start is not None:
        return replace(sample, positions=start)
    positions = project(
        reduced, start, lambda done, total: progress.report("arranging points", done, total, unit="steps")
    )
    return replace(sample, positions=positions)
