"""Review the images for which a person's answer helps most, one by one, each with a single key."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, get_args

from fastapi import APIRouter, Depends, Form, HTTPException, Path, Query
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from catalog_airflow.pages.access import AnyViewer, Reviewer, Viewer
from catalog_airflow.pages.answering import store_answers, undo_one, undo_together
from catalog_airflow.pages.catalog_access import change_catalog, open_queue, read_catalog, read_queue
from catalog_airflow.pages.templating import make_url, render_page
from jobs.database.examples import NOT_CLOTHING
from jobs.database.image_choices import SiblingImage, list_siblings
from jobs.database.review_claims import claim_first, read_claims, release_claims
from jobs.database.review_progress import AnswerBatch, count_sitting, read_batch
from jobs.database.reviews import Answer, PastAnswer, ReviewItem, ReviewReason, read_past_answers
from jobs.review.accuracy import ReviewedAccuracy, read_reviewed_accuracy
from jobs.review.answers import ReviewRefusedError, list_answers
from jobs.review.queue import MAX_COUNTED, REASONS, Backlog, count_waiting, read_backlog, read_review_queue

QUEUE_SIZE = 24
PAST_SHOWN = 8
SIBLINGS_SHOWN = 8
PRELOADED = 2
"""Images after the current one that the browser loads in advance."""
MAX_SKIPPED = 100
"""If more images are skipped, the first ones are shown again."""
SKIPPED = r"^([0-9]{1,18}(-[0-9]{1,18})*)?$"

router = APIRouter()

Only = Annotated[ReviewReason | None, BeforeValidator(lambda value: value or None)]
ReviewId = Annotated[int, Path(ge=1, lt=2**63)]


class ReviewQuery(BaseModel):
    """The query parameters of the page: one reason or all, and the ids of skipped images with hyphens between them."""

    model_config = ConfigDict(frozen=True)

    only: Only = None
    skip: Annotated[str, Field(max_length=20 * MAX_SKIPPED, pattern=SKIPPED)] = ""

    @property
    def address(self) -> str:
        """Return the address of this page."""
        return make_url("review", only=self.only, skip=self.skip)

    @property
    def skipped(self) -> tuple[int, ...]:
        """Return the ids of the skipped images."""
        return tuple(int(image_id) for image_id in self.skip.split("-") if image_id)

    def make_skip_url(self, image_id: int) -> str:
        """Return the address of this page without an image."""
        skipped = [*self.skipped, image_id][-MAX_SKIPPED:]
        return make_url("review", only=self.only, skip="-".join(map(str, skipped)))


@dataclass(frozen=True)
class ReviewForm:
    """The page that a form returns to."""

    query: ReviewQuery

    @classmethod
    def read(cls, only: Annotated[str, Form()] = "", skip: Annotated[str, Form()] = "") -> "ReviewForm":
        """Read the fields of the form. If they are invalid, return to the first page."""
        try:
            return cls(ReviewQuery.model_validate({"only": only, "skip": skip}))
        except ValueError:
            return cls(ReviewQuery())


AnyForm = Annotated[ReviewForm, Depends(ReviewForm.read)]


@router.get("/review")
def show_review(viewer: AnyViewer, query: Annotated[ReviewQuery, Query()]) -> HTMLResponse:
    """Show the next image of the queue, and those after it."""
    return _render_review(viewer, query)


@router.post("/review")
def record_answer(
    viewer: Reviewer,
    form: AnyForm,
    image_id: Annotated[int, Form(ge=1, lt=2**63)],
    reason: Annotated[ReviewReason, Form()],
    answer: Annotated[str, Form(max_length=200)],
) -> Response:
    """Record one answer for one image."""
    return _record(viewer, form.query, [Answer(image_id, reason, answer.strip())])


@router.post("/review/accept")
def accept_answers(
    viewer: Reviewer, form: AnyForm, accepted: Annotated[list[str], Form(max_length=QUEUE_SIZE)]
) -> Response:
    """Record the displayed predictions of several images as answers."""
    return _record(viewer, form.query, [_parse_accepted(value) for value in accepted])


@router.post("/review/answers/{review_id}/undo")
def undo(viewer: Reviewer, form: AnyForm, review_id: ReviewId, together: Annotated[bool, Form()] = False) -> Response:
    """Undo an answer, or all answers that were stored together with it."""
    try:
        (undo_together if together else undo_one)(review_id, viewer.name)
    except ReviewRefusedError as refused:
        return _render_review(viewer, form.query, problem=str(refused))
    return RedirectResponse(form.query.address, 303)


def _record(viewer: Viewer, query: ReviewQuery, answers: list[Answer]) -> Response:
    try:
        store_answers(answers, viewer.name)
    except ReviewRefusedError as refused:
        return _render_review(viewer, query, problem=str(refused))
    return RedirectResponse(query.address, 303)


def _parse_accepted(value: str) -> Answer:
    """Parse the value of a checkbox: image id, reason, and the prediction that was shown."""
    image_id, _, rest = value.partition(" ")
    reason, _, category = rest.partition(" ")
    for known in get_args(ReviewReason):
        if reason == known and image_id.isascii() and image_id.isdecimal() and len(image_id) < 19:
            return Answer(int(image_id), known, category)
    raise HTTPException(422, "One of the accepted images is not on this page.")


@dataclass(frozen=True)
class _Review:
    """What the page shows except for the current image. ``items`` leaves out images that others have claimed."""

    items: Sequence[ReviewItem]
    others_claimed: int
    backlog: Sequence[Backlog]
    waiting: int
    answered: int
    accuracy: ReviewedAccuracy | None
    past: Sequence[PastAnswer]
    last: AnswerBatch | None
    categories: Sequence[str]


def _render_review(viewer: Viewer, query: ReviewQuery, problem: str = "") -> HTMLResponse:
    review = _read_review(viewer, query)
    if not review.items and review.waiting and not review.others_claimed and not query.skip:
        # Another server has stored the answers for all images that this one found.
        open_queue().forget()
        review = _read_review(viewer, query)
    item, siblings = _choose_item(viewer, query, review.items)
    others = [other for other in review.items if item is None or other.image_id != item.image_id]
    return render_page(
        "review.html",
        viewer,
        status_code=409 if problem else 200,
        query=query,
        review=review,
        item=item,
        siblings=siblings,
        others=others,
        preloaded=[other.image_id for other in others[:PRELOADED]],
        skip_url=query.make_skip_url(item.image_id) if item else None,
        max_counted=MAX_COUNTED,
        not_clothing=NOT_CLOTHING,
        problem=problem,
    )


def _read_review(viewer: Viewer, query: ReviewQuery) -> _Review:
    with read_catalog() as connection:
        queue, claims = read_queue(connection), read_claims(connection)
        claimed = {image_id for image_id, person in claims.items() if person != viewer.name}
        hidden = {*claimed, *query.skipped}
        items = read_review_queue(connection, queue, query.only, QUEUE_SIZE, hidden)
        backlog = read_backlog(connection, queue)
        past = read_past_answers(connection, viewer.name, PAST_SHOWN)
        last = next((answer.review_id for answer in past if not answer.is_undone), None)
        return _Review(
            # A reviewer's own claim comes first, so a reload shows the same image.
            items=sorted(items, key=lambda item: item.image_id not in claims),
            others_claimed=len(claimed),
            backlog=backlog,
            waiting=count_waiting(queue, backlog, query.only),
            answered=count_sitting(connection, viewer.name, [query.only] if query.only else REASONS),
            accuracy=read_reviewed_accuracy(connection),
            past=past,
            last=read_batch(connection, last, viewer.name) if last else None,
            categories=list_answers(connection),
        )


def _choose_item(
    viewer: Viewer, query: ReviewQuery, items: Sequence[ReviewItem]
) -> tuple[ReviewItem | None, Sequence[SiblingImage]]:
    """Return the image to show and the other images of its product. A reviewer claims the image."""
    with change_catalog() if viewer.may_review else read_catalog() as connection:
        by_id = {item.image_id: item for item in items}
        if viewer.may_review:
            release_claims(connection, viewer.name, query.skipped)
            item = by_id.get(claim_first(connection, list(by_id), viewer.name) or 0)
        else:
            item = next(iter(items), None)
        return item, list_siblings(connection, item.product_id, item.image_id, SIBLINGS_SHOWN) if item else ()
