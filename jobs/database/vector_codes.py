"""Queries on ``vector_codes``: short codes that preselect which vectors to compare in a large category."""

from sqlalchemy import Connection, Engine, text

from jobs.database.spaces import find_live_space, lock_space


def renew_live_codes(engine: Engine) -> None:
    """Update the codes of the live space, if there is one. This takes a long time in a large catalog."""
    with engine.begin() as connection:
        space_id = find_live_space(connection)
        if space_id is not None:
            renew_vector_codes(connection, space_id)


def renew_vector_codes(connection: Connection, space_id: int) -> None:
    """Update the codes of a space from its vectors and the current tags. Read all rows, but write only differences.

    Until this is done, searches in a large category miss new images, and are slow if they find too few.
    """
    lock_space(connection, space_id)
    # Right after a load, the planner still assumes small tables, and would look up each image in every table.
    connection.execute(text("SET LOCAL enable_nestloop = off"))
    connection.execute(text(UPSERT), {"space": space_id})
    connection.execute(text(DELETE), {"space": space_id})
    connection.execute(text("SET LOCAL enable_nestloop = on"))


UPSERT = """
    INSERT INTO catalog.vector_codes (space_id, image_id, image_category, product_category, code)
    SELECT e.space_id, e.image_id, t.category, p.category, binary_quantize(e.embedding)
    FROM catalog.image_embeddings e
    JOIN catalog.images i USING (image_id)
    LEFT JOIN catalog.current_image_tags t USING (image_id)
    LEFT JOIN catalog.current_product_tags p ON p.product_id = i.product_id
    LEFT JOIN catalog.vector_codes c ON c.space_id = e.space_id AND c.image_id = e.image_id
    WHERE e.space_id = :space AND i.deleted_at IS NULL
        -- Not in the upsert: it also locks rows that it does not change, and could revert a concurrent label.
        AND (c.image_category, c.product_category, c.code)
            IS DISTINCT FROM (t.category, p.category, CAST(binary_quantize(e.embedding) AS bit varying))
    -- Sorted by category, so that a search reads few pages.
    ORDER BY p.category, e.image_id
    ON CONFLICT (space_id, image_id) DO UPDATE
    SET image_category = excluded.image_category, product_category = excluded.product_category, code = excluded.code
"""
DELETE = """
    DELETE FROM catalog.vector_codes c
    WHERE c.space_id = :space AND NOT EXISTS (
        SELECT FROM catalog.images i JOIN catalog.image_embeddings e USING (image_id)
        WHERE i.image_id = c.image_id AND i.deleted_at IS NULL AND e.space_id = :space
    )
"""
