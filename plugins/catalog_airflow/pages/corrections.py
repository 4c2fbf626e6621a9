"""Correct tags on the pages that show them: one image or several, each time with an undo."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import parse_qsl, urlencode

from fastapi import APIRouter, Depends, Form, HTTPException, Path, Request
from fastapi.responses import RedirectResponse
from pydantic import Field
from sqlalchemy import Connection

from catalog_airflow.page_links import locate_pages
from catalog_airflow.pages.access import Reviewer, Viewer
from catalog_airflow.pages.answering import store_answers, undo_together
from jobs.database.examples import NOT_CLOTHING
from jobs.database.image_choices import ImageChoices, read_choices
from jobs.database.review_progress import AnswerBatch, read_batch
from jobs.database.reviews import Answer
from jobs.review.answers import ReviewRefusedError, list_answers

MAX_CORRECTED = 200
"""Maximum number of images per form, more than any page shows."""
LAST = "corrected"
"""The query parameter with the review to report on and to undo."""
OWN_ADDRESS = re.compile(r"(images|product|search)(\?[!-~]*)?")
"""The addresses to return to, relative to the pages. Anything else could lead to another site."""

router = APIRouter()

ReviewId = Annotated[int, Path(ge=1, lt=2**63)]


@dataclass(frozen=True)
class Corrections:
    """The controls of a page for correcting tags, and who reviewed its images.

    Without ``address``, the page has no controls: the viewer may not review, or the page cannot be requested again.
    ``last`` is the viewer's correction to report on, or None.
    """

    choices: dict[int, ImageChoices]
    address: str | None = None
    answers: tuple[str, ...] = ()
    last: AnswerBatch | None = None

    def may_correct(self, image_id: int) -> bool:
        """Return whether the page has controls for an image. Deleted and untagged images have none."""
        return self.address is not None and image_id in self.choices

    def get_reviewer(self, image_id: int) -> str | None:
        """Return the person whose label applies to an image."""
        return self.choices[image_id].reviewed_by if image_id in self.choices else None


def read_corrections(connection: Connection, viewer: Viewer, request: Request, image_ids: Sequence[int]) -> Corrections:
    """Return the controls for the images that a page shows."""
    choices = read_choices(connection, image_ids)
    if not viewer.may_review or request.method != "GET":
        return Corrections(choices)
    query = parse_qsl(request.url.query)
    kept = [(name, value) for name, value in query if name != LAST]
    reported = next((value for name, value in query if name == LAST), "")
    page = request.url.path.rpartition("/")[2]
    return Corrections(
        choices,
        address=f"{page}?{urlencode(kept)}" if kept else page,
        answers=(*list_answers(connection), NOT_CLOTHING),
        last=read_batch(connection, int(reported), viewer.name) if re.fullmatch("[0-9]{1,18}", reported) else None,
    )


def _read_address(address: Annotated[str, Form(max_length=20_000)]) -> str:
    if not OWN_ADDRESS.fullmatch(address):
        raise HTTPException(422, "The form does not name one of the catalog's pages to return to.")
    return f"{locate_pages()}/{address}"


ReturnAddress = Annotated[str, Depends(_read_address)]


@router.post("/corrections")
def correct(
    viewer: Reviewer,
    address: ReturnAddress,
    image: Annotated[list[Annotated[int, Field(ge=1, lt=2**63)]], Form(min_length=1, max_length=MAX_CORRECTED)],
    answer: Annotated[str, Form(max_length=200)],
) -> RedirectResponse:
    """Label images with a category, all of them or none."""
    answers = [Answer(image_id, "correction", answer) for image_id in dict.fromkeys(image)]
    try:
        review_id = store_answers(answers, viewer.name)
    except ReviewRefusedError as refused:
        raise HTTPException(409, str(refused)) from None
    return _return_to(address, review_id)


@router.post("/corrections/{review_id}/undo")
def undo_correction(viewer: Reviewer, address: ReturnAddress, review_id: ReviewId) -> RedirectResponse:
    """Undo a correction for all images that it relabeled."""
    try:
        undo_together(review_id, viewer.name)
    except ReviewRefusedError as refused:
        raise HTTPException(409, str(refused)) from None
    return _return_to(address, review_id)


def _return_to(address: str, review_id: int) -> RedirectResponse:
    return RedirectResponse(f"{address}{'&' if '?' in address else '?'}{LAST}={review_id}", 303)
