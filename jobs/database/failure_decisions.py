"""What people decide about images that could not be tagged; only open failures can be decided on."""

from collections.abc import Sequence

from sqlalchemy import Connection, text


def retry_failures(connection: Connection, image_ids: Sequence[int], asked_by: str) -> int:
    """Have the next ingest ask these images once more, also if no attempt was left; returns how many are open."""
    return _decide(
        connection,
        image_ids,
        asked_by,
        "retry_asked_by = :person, retry_asked_at = now(), ignored_by = NULL, ignored_at = NULL",
    )


def ignore_failures(connection: Connection, image_ids: Sequence[int], ignored_by: str) -> int:
    """Leave these images alone until their bytes change; returns how many are open."""
    return _decide(
        connection,
        image_ids,
        ignored_by,
        "ignored_by = :person, ignored_at = now(), retry_asked_by = NULL, retry_asked_at = NULL",
    )


def _decide(connection: Connection, image_ids: Sequence[int], person: str, changes: str) -> int:
    statement = text(f"""
        UPDATE catalog.item_failures SET {changes} WHERE image_id = ANY (:ids) AND resolved_at IS NULL
    """)
    return connection.execute(statement, {"person": person, "ids": list(image_ids)}).rowcount
