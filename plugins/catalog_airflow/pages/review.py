"""Review the images for which a person's answer helps most, one by one, each with a single key."""

from dataclasses import dataclass
from typing import Annotated, get_args

from fastapi import APIRouter, Depends, Form, HTTPException, Path, Query
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from catalog_airflow.pages.access import AnyViewer, Reviewer, Viewer
from catalog_airflow.pages.catalog_access import change_catalog, read_catalog, read_drift_settings
from catalog_airflow.pages.templating import make_url, render_page
from jobs.database.examples import NOT_CLOTHING
from jobs.database.reviews import Answer, ReviewReason, read_past_answers
from jobs.review.accuracy import read_reviewed_accuracy
from jobs.review.answers import ReviewRefusedError, list_answers, record_answers, undo_answer
from jobs.review.queue import MAX_COUNTED, find_review_queue, read_backlog, read_review_queue

QUEUE_SIZE = 24
PAST_SHOWN = 8

router = APIRouter()

Only = Annotated[ReviewReason | None, BeforeValidator(lambda value: value or None)]
Place = Annotated[int, Field(ge=0, lt=QUEUE_SIZE)]
ReviewId = Annotated[int, Path(ge=1, lt=2**63)]


class ReviewQuery(BaseModel):
    """The query parameters of the page: one reason or all, and the number of skipped images."""

    model_config = ConfigDict(frozen=True)

    only: Only = None
    at: Place = 0

    @property
    def address(self) -> str:
        """Return the address of this page."""
        return make_url("review", only=self.only, at=self.at)


@dataclass(frozen=True)
class ReviewForm:
    """The page that a form returns to."""

    query: ReviewQuery

    @classmethod
    def read(cls, only: Annotated[str, Form()] = "", at: Annotated[int, Form()] = 0) -> "ReviewForm":
        """Read the fields of the form. If they are invalid, return to the first page."""
        is_known = only in get_args(ReviewReason)
        return cls(ReviewQuery.model_validate({"only": only if is_known else None, "at": at % QUEUE_SIZE}))


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
def undo(viewer: Reviewer, form: AnyForm, review_id: ReviewId) -> Response:
    """Undo an answer."""
    try:
        with change_catalog() as connection:
            undo_answer(connection, review_id, viewer.name)
    except ReviewRefusedError as refused:
        return _render_review(viewer, form.query, problem=str(refused))
    return RedirectResponse(form.query.address, 303)


def _record(viewer: Viewer, query: ReviewQuery, answers: list[Answer]) -> Response:
    try:
        with change_catalog() as connection:
            record_answers(connection, answers, viewer.name)
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


def _render_review(viewer: Viewer, query: ReviewQuery, problem: str = "") -> HTMLResponse:
    with read_catalog() as connection:
        queue = find_review_queue(connection, read_drift_settings())
        items = read_review_queue(connection, queue, query.only, QUEUE_SIZE)
        backlog = read_backlog(connection, queue)
        accuracy = read_reviewed_accuracy(connection)
        past = read_past_answers(connection, viewer.name, PAST_SHOWN)
        categories = list_answers(connection)
    at = query.at if query.at < len(items) else 0
    return render_page(
        "review.html",
        viewer,
        status_code=409 if problem else 200,
        query=query,
        item=items[at] if items else None,
        others=[item for place, item in enumerate(items) if place != at],
        skip_url=make_url("review", only=query.only, at=at + 1) if at + 1 < len(items) else None,
        backlog=backlog,
        max_counted=MAX_COUNTED,
        accuracy=accuracy,
        past=past,
        undoable=next((answer.review_id for answer in past if not answer.is_undone), None),
        categories=categories,
        not_clothing=NOT_CLOTHING,
        problem=problem,
    )
