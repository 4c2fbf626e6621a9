"""Store review answers as labels, which take precedence over tags immediately, and undo them."""

from collections.abc import Sequence

from sqlalchemy import Connection

from jobs.database.examples import NOT_CLOTHING
from jobs.database.model_versions import read_live_versions
from jobs.database.products import list_categories
from jobs.database.review_claims import release_claims
from jobs.database.review_progress import list_stored_together
from jobs.database.reviews import (
    Answer,
    find_others_answer,
    insert_review,
    lock_image_review,
    lock_review,
    undo_review,
)


class ReviewRefusedError(ValueError):
    """An answer that cannot be stored or undone. The message is for the reviewer."""


def list_answers(connection: Connection) -> tuple[str, ...]:
    """List the categories that a reviewer can choose, without `NOT_CLOTHING`."""
    return tuple(category for category in list_categories(connection) if category != NOT_CLOTHING)


def record_answers(connection: Connection, answers: Sequence[Answer], reviewed_by: str) -> list[int]:
    """Store answers as labels and return the ids of the reviews, in their order.

    Raises:
        ReviewRefusedError: the category does not exist, or the image is gone, has no tag of the live classifier, or
            was already answered by somebody else. Nothing is stored in this case. A correction replaces the answer
            of somebody else, because its author sees that answer.
    """
    version = read_live_versions(connection).classifier
    if version is None:
        raise ReviewRefusedError("No classifier is live, so there is nothing to review.")
    known = {*list_answers(connection), NOT_CLOTHING}
    for answer in answers:
        if answer.answer not in known:
            raise ReviewRefusedError(
                f"There is no category {answer.answer!r}. New categories come with imported labels and a retraining."
            )
    # Held until the commit, so the second of two concurrent answers sees the first. Sorted against deadlocks.
    for image_id in sorted({answer.image_id for answer in answers}):
        lock_image_review(connection, image_id)
    review_ids = [_record(connection, version, answer, reviewed_by) for answer in answers]
    release_claims(connection, reviewed_by, [answer.image_id for answer in answers])
    return review_ids


def _record(connection: Connection, classifier_version_id: int, answer: Answer, reviewed_by: str) -> int:
    first = find_others_answer(connection, classifier_version_id, answer.image_id, reviewed_by)
    if first is not None and answer.reason != "correction":
        raise ReviewRefusedError(
            f"{first.reviewed_by} has already answered for image {answer.image_id}: {first.answer}."
        )
    review_id = insert_review(connection, classifier_version_id, answer, reviewed_by)
    if review_id is None:
        raise ReviewRefusedError(
            f"Image {answer.image_id} is gone or has no tag of the live classifier. Reload the page."
        )
    return review_id


def undo_answer(connection: Connection, review_id: int, undone_by: str) -> int:
    """Undo an answer and delete its label. The tag or label before it applies again. Return the image's id.

    Raises:
        ReviewRefusedError: the answer does not exist or is already undone, or somebody has answered since.
    """
    return _undo(connection, [review_id], undone_by)[0]


def undo_batch(connection: Connection, review_id: int, undone_by: str) -> list[int]:
    """Undo what is left of the answers that a person stored together with this one. Return the images' ids.

    Raises:
        ReviewRefusedError: the answer is not theirs, or one of the answers cannot be undone. Nothing is undone then.
    """
    review_ids = list_stored_together(connection, review_id, undone_by)
    if not review_ids:
        raise ReviewRefusedError(f"You gave no answer {review_id}.")
    return _undo(connection, review_ids, undone_by)


def _undo(connection: Connection, review_ids: Sequence[int], undone_by: str) -> list[int]:
    image_ids = []
    for review_id in reversed(review_ids):
        review = lock_review(connection, review_id)
        if review is None:
            raise ReviewRefusedError(f"There is no answer {review_id}.")
        if review.undone_by is not None:
            raise ReviewRefusedError(f"This answer was already undone by {review.undone_by}.")
        if review.overruled_by is not None:
            raise ReviewRefusedError(f"This answer no longer applies: {review.overruled_by} has answered since.")
        undo_review(connection, review_id, undone_by)
        image_ids.append(review.image_id)
    # The queue then shows this person the image again, and not the one after it.
    release_claims(connection, undone_by)
    return image_ids
