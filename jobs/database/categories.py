"""The categories that may be asked for."""

from sqlalchemy import Connection, text


def list_categories(connection: Connection) -> tuple[str, ...]:
    """Those of the live classifier, and those that humans gave, in the order of the alphabet."""
    statement = text("""
        WITH RECURSIVE given AS (
            (SELECT category FROM catalog.labels ORDER BY category LIMIT 1)
            UNION ALL
            SELECT (SELECT l.category FROM catalog.labels l WHERE l.category > g.category ORDER BY l.category LIMIT 1)
            FROM given g WHERE g.category IS NOT NULL
        )
        SELECT unnest(categories) AS category FROM catalog.live_models WHERE kind = 'classifier'
        UNION
        SELECT category FROM given WHERE category IS NOT NULL
        ORDER BY category
    """)
    return tuple(connection.execute(statement).scalars())
