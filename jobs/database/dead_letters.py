"""Queries on dead letters: changes that a webhook did not accept."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

from jobs.database.changes import Change, fetch_changes
from jobs.database.records import read_records, text_with_json


@dataclass(frozen=True)
class DeadLetter:
    """Changes that a webhook did not accept, in number. ``is_waiting`` means that they will be sent again."""

    dead_letter_id: int
    webhook: str
    changes: int
    error: str
    failed_at: datetime
    is_waiting: bool


def insert_dead_letter(connection: Connection, webhook: str, changes: Sequence[Change], error: str) -> None:
    """Store changes that a webhook did not accept."""
    rows = [
        {
            "transaction_id": str(change.transaction_id),
            "change_id": change.change_id,
            "kind": change.kind,
            "product_id": change.product_id,
            "happened_at": change.happened_at.isoformat(),
        }
        for change in changes
    ]
    statement = "INSERT INTO catalog.dead_letters (webhook, changes, error) VALUES (:webhook, :changes, :error)"
    connection.execute(text_with_json(statement, "changes"), {"webhook": webhook, "changes": rows, "error": error})


def list_dead_letters(connection: Connection) -> tuple[DeadLetter, ...]:
    """Return all dead letters, oldest first."""
    rows = connection.execute(
        text("""
            SELECT dead_letter_id, webhook, jsonb_array_length(changes) AS changes, error, failed_at,
                   retry_requested_at IS NOT NULL AS is_waiting
            FROM catalog.dead_letters ORDER BY dead_letter_id
        """)
    )
    return tuple(read_records(rows, DeadLetter))


def request_retries(connection: Connection, webhook: str | None) -> int:
    """Let the next delivery send the dead letters of a webhook, or of all, again. Return their number."""
    statement = text("""
        UPDATE catalog.dead_letters SET retry_requested_at = now()
        WHERE CAST(:webhook AS text) IS NULL OR webhook = :webhook
    """)
    return connection.execute(statement, {"webhook": webhook}).rowcount


def find_retry(connection: Connection, webhook: str) -> int | None:
    """Return the id of the dead letter of a webhook that should be sent again next, or None."""
    statement = text("""
        SELECT dead_letter_id FROM catalog.dead_letters
        WHERE webhook = :webhook AND retry_requested_at IS NOT NULL
        ORDER BY retry_requested_at, dead_letter_id LIMIT 1
    """)
    found: int | None = connection.scalar(statement, {"webhook": webhook})
    return found


def read_dead_letter(connection: Connection, dead_letter_id: int) -> list[Change]:
    """Return the changes of a dead letter with the current state of their products."""
    statement = text("""
        SELECT c.*, catalog.product_state(c.product_id) AS product
        FROM catalog.dead_letters d CROSS JOIN LATERAL jsonb_to_recordset(d.changes)
            AS c (transaction_id text, change_id bigint, kind text, product_id text, happened_at timestamptz)
        WHERE d.dead_letter_id = :letter
        ORDER BY CAST(c.transaction_id AS bigint), c.change_id
    """)
    return fetch_changes(connection.execute(statement, {"letter": dead_letter_id}))


def postpone_retry(connection: Connection, dead_letter_id: int, error: str) -> None:
    """Store why a dead letter was not accepted again. It is sent again after the others."""
    connection.execute(
        text("""
            UPDATE catalog.dead_letters SET retry_requested_at = clock_timestamp(), error = :error
            WHERE dead_letter_id = :letter
        """),
        {"letter": dead_letter_id, "error": error},
    )


def delete_dead_letter(connection: Connection, dead_letter_id: int) -> None:
    """Delete a dead letter that was accepted."""
    connection.execute(
        text("DELETE FROM catalog.dead_letters WHERE dead_letter_id = :letter"), {"letter": dead_letter_id}
    )
