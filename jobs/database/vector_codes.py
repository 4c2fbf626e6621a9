"""Queries on ``vector_codes``: which vectors of a large category are worth comparing with a question's."""

from sqlalchemy import Connection, Engine, text

from jobs.database.spaces import find_live_space, lock_space


def renew_live_codes(engine: Engine) -> None:
    """Renew the codes of the live space, if there is one; in a large catalog it takes long."""
    with engine.begin() as connection:
        space_id = find_live_space(connection)
        if space_id is not None:
            renew_vector_codes(connection, space_id)


def renew_vector_codes(connection: Connection, space_id: int) -> None:
    """Bring the codes of a space to its vectors and to the current tags; reads all of them, writes what differs.

    Until then, searches in a large category miss what came since, and are slow where they find too little.
    """
    lock_space(connection, space_id)
    # Right after a load the planner believes its tables to be small, and would look each image up in all of them.
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
        -- Here, since an upsert locks the rows that it leaves as they are, and would undo a label of this moment.
        AND (c.image_category, c.product_category, c.code)
            IS DISTINCT FROM (t.category, p.category, CAST(binary_quantize(e.embedding) AS bit varying))
    -- Together by category, so that a search reads few pages.
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
