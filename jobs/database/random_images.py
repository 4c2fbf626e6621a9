"""Images in a random order that is the same each time for one model version, read by an index.

Photos lie on a circle by a hash of their id, and each version starts at a point of its own, so that the photos of
one audit, which the next version may have learned from, are not those of the next. Consecutive photos of the circle
are a simple random sample. A photo that comes later falls between those that were drawn, and is then asked first.
"""

START = "(SELECT hashint8extended(CAST(:version AS bigint), 1))"
PLACE = "hashint8extended(i.image_id, 0)"

RANDOM_IMAGES = f"""
    (SELECT {{columns}}, 0 AS segment, {PLACE} AS place FROM catalog.images i {{joins}}
     WHERE {PLACE} >= {START} AND {{condition}} ORDER BY {PLACE} LIMIT :limit)
    UNION ALL
    (SELECT {{columns}}, 1 AS segment, {PLACE} AS place FROM catalog.images i {{joins}}
     WHERE {PLACE} < {START} AND {{condition}} ORDER BY {PLACE} LIMIT :limit)
"""
"""The first ``:limit`` photos of each half of the circle, in the order (segment, place), for a ``:version``."""
