"""Which products look like this one."""

from sqlalchemy import Connection

from jobs.connections import connect
from jobs.search.hits import ProductHit, read_product_hits
from jobs.settings import Settings, load_settings


def similar_products(
    product_id: str, k: int = 10, category: str | None = None, *, settings: Settings | None = None
) -> list[ProductHit]:
    """The ``k`` products most similar to a product, without itself, of one category if one is given.

    Raises:
        PermanentError: no such product, or none of its photos has a vector yet.
        RetryableError: the database is away.
    """
    with connect(settings or load_settings()) as connections, connections.engine.connect() as connection:
        return find_similar_products(connection, product_id, k, category)


def find_similar_products(connection: Connection, product_id: str, k: int, category: str | None) -> list[ProductHit]:
    """`similar_products` on an open connection."""
    return read_product_hits(
        connection,
        "SELECT * FROM catalog.similar_products(:product, CAST(:k AS integer), :category)",
        {"product": product_id, "k": k, "category": category},
    )
