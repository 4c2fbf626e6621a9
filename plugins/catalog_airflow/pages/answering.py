"""Store and undo answers in a transaction of their own, and keep the shared review queue up to date."""

from collections.abc import Sequence

from catalog_airflow.pages.catalog_access import change_catalog, open_queue
from jobs.database.reviews import Answer
from jobs.review.answers import record_answers, undo_answer, undo_batch


def store_answers(answers: Sequence[Answer], person: str) -> int:
    """Store all answers or none, and return the id of the last review.

    Raises:
        ReviewRefusedError: an answer cannot be stored.
    """
    with change_catalog() as connection:
        review_ids = record_answers(connection, answers, person)
    open_queue().add_answers([answer.image_id for answer in answers])
    return review_ids[-1]


def undo_one(review_id: int, person: str) -> None:
    """Undo an answer, which may be that of another person.

    Raises:
        ReviewRefusedError: the answer cannot be undone.
    """
    with change_catalog() as connection:
        image_id = undo_answer(connection, review_id, person)
    open_queue().remove_answers([image_id])


def undo_together(review_id: int, person: str) -> None:
    """Undo all answers that this person stored together with this one, or none of them.

    Raises:
        ReviewRefusedError: one of the answers cannot be undone.
    """
    with change_catalog() as connection:
        image_ids = undo_batch(connection, review_id, person)
    open_queue().remove_answers(image_ids)
