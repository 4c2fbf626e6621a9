"""Queries on the neighbours of images in any space, live or not."""

from sqlalchemy import Connection, text

from jobs.database.spaces import EmbeddingSpace


def sample_common_images(connection: Connection, first_space_id: int, second_space_id: int, images: int) -> list[int]:
    """So many images of those that both spaces hold, at random but always the same."""
    statement = text("""
        SELECT i.image_id FROM catalog.images i
        WHERE i.deleted_at IS NULL
          AND EXISTS (SELECT FROM catalog.image_embeddings e WHERE e.space_id = :first AND e.image_id = i.image_id)
          AND EXISTS (SELECT FROM catalog.image_embeddings e WHERE e.space_id = :second AND e.image_id = i.image_id)
        ORDER BY md5(i.image_id::text) LIMIT :images
    """)
    parameters = {"first": first_space_id, "second": second_space_id, "images": images}
    return list(connection.execute(statement, parameters).scalars())


def find_neighbours(connection: Connection, space: EmbeddingSpace, image_id: int, k: int) -> list[int]:
    """The nearest images in the bucket to one that the space holds, nearest first, without itself."""
    vector = connection.execute(
        text("SELECT embedding::text FROM catalog.image_embeddings WHERE space_id = :space AND image_id = :image"),
        {"space": space.space_id, "image": image_id},
    ).scalar_one()
    # The space and its length stand in the statement, as the index asks for.
    statement = text(f"""
        SELECT e.image_id FROM catalog.image_embeddings e
        WHERE e.space_id = {space.space_id:d} AND e.image_id <> :image
          AND catalog.is_answer(e.image_id, NULL, false)
        ORDER BY e.embedding::halfvec({space.dimensions:d}) <=> CAST(:vector AS halfvec({space.dimensions:d}))
        LIMIT :k
    """)
    return list(connection.execute(statement, {"image": image_id, "vector": vector, "k": k}).scalars())
