"""Images in a random order that is the same each time for one model version, read by an index.

Photos lie on a circle by a hash of their id, and each version starts at a point of its own, so that the photos of
one audit, which the next version may have learned from, are not those of the next. Consecutive photos of the circle
are a simple random sample. A photo that comes later falls between those that were drawn, and is then asked first.
"""

START = "(SELECT hashint8extended(CAST(:version AS bigint), 1))"
PLACE = "hashint8extended(i.image_id, 0)"
FIRST_PLACE, LAST_PLACE = -(2**63), 2**63 - 1


def select_random_images(columns: str, joins: str, condition: str, *, is_bounded: bool = False) -> str:
    """SQL for the first ``:limit`` images ``i`` on the circle of a ``:version``, from its start.

    ``segment`` and ``place`` say in which order. Bounded it ends, of segment 0 and 1, at ``:last_0`` and ``:last_1``.
    """
    bounds = [f"AND {PLACE} <= :last_{segment}" if is_bounded else "" for segment in (0, 1)]
    return f"""
        WITH first_segment AS MATERIALIZED (
            SELECT {columns}, 0 AS segment, {PLACE} AS place FROM catalog.images i {joins}
            WHERE {PLACE} >= {START} AND {condition} {bounds[0]} ORDER BY {PLACE} LIMIT :limit
        )
        SELECT * FROM first_segment
        UNION ALL
        (SELECT {columns}, 1 AS segment, {PLACE} AS place FROM catalog.images i {joins}
         WHERE {PLACE} < {START} AND {condition} {bounds[1]} ORDER BY {PLACE}
         LIMIT :limit - (SELECT count(*) FROM first_segment))
        LIMIT :limit -- says to the planner how few they are
    """
