"""What the image grid can filter and sort by, and the cursors that continue a page."""

import base64
import binascii
import json
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

Sort = Literal["newest", "oldest", "least_confident", "most_confident", "name"]
OrderKey = Literal["image", "time", "confidence", "name"]


class BadCursorError(ValueError):
    """The cursor is damaged or belongs to another order."""


@dataclass(frozen=True)
class Order:
    """The key that images are sorted by. Equal keys are sorted by image id, in the same direction."""

    key: OrderKey
    is_descending: bool


@dataclass(frozen=True)
class ImageFilter:
    """The conditions of the grid and its order. An image must meet all conditions.

    ``text`` matches words of product names and the start of product ids. ``run_id`` selects the images that the
    classifier of that run tagged while it ran. With ``classifier_version_id``, the tags shown are those of that
    version. Otherwise they are the current ones: the label if there is one, else the tag of the live classifier.
    ``area`` is a polygon on the map of the live space, as "x,y;x,y;...".
    """

    category: str | None = None
    min_confidence: float | None = None
    max_confidence: float | None = None
    images_disagree: bool = False
    run_id: str | None = None
    classifier_version_id: int | None = None
    deleted: bool = False
    text: str = ""
    area: str | None = None
    sort: Sort = "newest"

    @property
    def order(self) -> Order:
        """The images of a run are sorted by the time of their tags, because a run can tag old images again."""
        match self.sort:
            case "least_confident" | "most_confident":
                return Order("confidence", self.sort == "most_confident")
            case "name":
                return Order("name", False)
        return Order("time" if self.run_id else "image", self.sort == "newest")

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The lowest and the highest confidence, or None without a filter on confidence."""
        if self.min_confidence is None and self.max_confidence is None:
            return None
        lowest = 0.0 if self.min_confidence is None else self.min_confidence
        return lowest, 1.0 if self.max_confidence is None else self.max_confidence

    @property
    def needs_tags(self) -> bool:
        """Whether images without a tag are excluded."""
        is_tag_filtered = self.category or self.bounds or self.run_id or self.classifier_version_id
        return bool(is_tag_filtered or self.order.key == "confidence")

    @property
    def has_labels(self) -> bool:
        """Whether labels override tags. They do not if the tags of a version or run are selected."""
        return self.classifier_version_id is None and self.run_id is None

    @property
    def words(self) -> str:
        """The text to search for, without characters that Postgres does not accept."""
        return self.text.replace("\0", " ").strip()


@dataclass(frozen=True)
class Place:
    """The key and the id of the last image before a page. The keys of the orders image and name are None."""

    key: str | float | None
    image_id: int


def write_cursor(key: str | float | None, image_id: int) -> str:
    """Encode the position after an image, in a list ordered by a key and then by image id."""
    return base64.urlsafe_b64encode(json.dumps([key, image_id]).encode()).decode().rstrip("=")


def read_cursor(cursor: str, order: Order) -> Place:
    """Decode a cursor.

    Raises:
        BadCursorError: the cursor is damaged, or belongs to an order with another key.
    """
    try:
        values = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (binascii.Error, ValueError):
        values = None
    match values:
        case [str() | float() | None as key, int() as image_id] if 0 <= image_id < 2**63:
            pass
        case _:
            raise BadCursorError("this page's address is damaged: start again from the first page")
    try:
        expected = {"confidence": float, "time": str}.get(order.key, type(None))
        fits = isinstance(key, expected)
        if isinstance(key, str):
            datetime.fromisoformat(key)
    except ValueError:
        fits = False
    if not fits:
        raise BadCursorError("this page's address does not fit the filters: start again from the first page")
    return Place(key, image_id)
