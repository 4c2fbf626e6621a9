"""How far two spaces agree on what is near: what a switch of the encoder changes for those who search."""

from dataclasses import dataclass

from sqlalchemy import Engine, text

from jobs.database.neighbours import find_neighbours, sample_common_images
from jobs.database.spaces import read_space

SAMPLE_IMAGES = 200
NEIGHBOURS = 10


@dataclass(frozen=True)
class NeighbourAgreement:
    """``overlap`` is the mean share, 0 to 1, of the nearest images in the old space that are nearest in the new one.

    It is None where no image has a neighbour in both spaces.
    """

    images: int
    overlap: float | None


def measure_agreement(engine: Engine, old_space_id: int, new_space_id: int) -> NeighbourAgreement:
    """Compare the neighbours of a sample of the images that are in both spaces, always the same sample."""
    overlaps: list[float] = []
    with engine.begin() as connection:
        # As in catalog.rank_images: the index gives most true neighbours, also where images left the bucket.
        connection.execute(text("SET LOCAL hnsw.iterative_scan = strict_order"))
        connection.execute(text("SET LOCAL hnsw.ef_search = 400"))
        spaces = [read_space(connection, space_id) for space_id in (old_space_id, new_space_id)]
        for image_id in sample_common_images(connection, old_space_id, new_space_id, SAMPLE_IMAGES):
            old, new = (find_neighbours(connection, space, image_id, NEIGHBOURS) for space in spaces)
            if old:
                overlaps.append(len(set(old) & set(new)) / len(old))
    return NeighbourAgreement(len(overlaps), round(sum(overlaps) / len(overlaps), 4) if overlaps else None)
