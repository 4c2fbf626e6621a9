"""Claims on images that reviewers have on their screens, which keep two people from the same image."""

from collections.abc import Sequence

from sqlalchemy import Connection, text

CLAIM_MINUTES = 10


def read_claims(connection: Connection) -> dict[int, str]:
    """Return the image ids of all claims that have not expired, with the person of each."""
    statement = text("SELECT image_id, claimed_by FROM catalog.review_claims WHERE expires_at > now()")
    return {row.image_id: row.claimed_by for row in connection.execute(statement)}


def claim_first(connection: Connection, image_ids: Sequence[int], person: str) -> int | None:
    """Claim the first of these images that nobody else has claimed. Return its id, or None if all are claimed.

    A person who claims an image again keeps it for another `CLAIM_MINUTES`.
    """
    # Without SKIP LOCKED, two people who delete the same rows would wait for each other.
    connection.execute(
        text("""
            DELETE FROM catalog.review_claims WHERE image_id IN (
                SELECT image_id FROM catalog.review_claims WHERE expires_at <= now() FOR UPDATE SKIP LOCKED
            )
        """)
    )
    statement = text("""
        INSERT INTO catalog.review_claims (image_id, claimed_by, expires_at)
        VALUES (:image, :person, now() + make_interval(mins => :minutes))
        ON CONFLICT (image_id) DO UPDATE SET claimed_by = excluded.claimed_by, expires_at = excluded.expires_at
        WHERE review_claims.claimed_by = :person OR review_claims.expires_at <= now()
        RETURNING image_id
    """)
    for image_id in image_ids:
        parameters = {"image": image_id, "person": person, "minutes": CLAIM_MINUTES}
        if connection.execute(statement, parameters).scalar_one_or_none() is not None:
            return image_id
    return None


def release_claims(connection: Connection, person: str, image_ids: Sequence[int] | None = None) -> None:
    """Give up a person's claims, or only those on some images."""
    statement = text("""
        DELETE FROM catalog.review_claims
        WHERE claimed_by = :person AND (CAST(:ids AS bigint[]) IS NULL OR image_id = ANY (CAST(:ids AS bigint[])))
    """)
    connection.execute(statement, {"person": person, "ids": None if image_ids is None else list(image_ids)})
