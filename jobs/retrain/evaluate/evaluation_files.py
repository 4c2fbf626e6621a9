"""The files beside an evaluation's row: which images would change their category, and which labels look wrong.

The page that shows all of it is written when the gates decide.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from pydantic import TypeAdapter

FLIPS_FILE = "flips.json"
LABEL_AUDIT_FILE = "label_audit.json"
PREDICTIONS_FILE = "predictions.parquet"
PAGE_FILE = "page.html"
MAX_THUMBNAILS = 40
"""Of the first entries of a list; the others come without, so that a page stays small."""


@dataclass(frozen=True)
class Flip:
    """A live image whose category the candidate would change; ``thumbnail`` is a JPEG in base64."""

    image_id: int
    object_key: str
    product_id: str
    old_category: str
    old_confidence: float
    new_category: str
    new_confidence: float
    thumbnail: str | None


@dataclass(frozen=True)
class LabelSuspect:
    """A label that is likely wrong.

    ``score`` is the candidate's confidence in the given label, from 0 to 1: the lower, the likelier wrong.
    ``thumbnail`` is a JPEG in base64.
    """

    content_hash: str
    given_label: str
    suggested_label: str
    score: float
    thumbnail: str | None


def encode_list(entries: Sequence[Flip] | Sequence[LabelSuspect]) -> bytes:
    """Write a list as JSON."""
    return json.dumps([asdict(entry) for entry in entries], ensure_ascii=False, allow_nan=False).encode()


def decode_flips(content: bytes) -> list[Flip]:
    """Read `FLIPS_FILE`, whose first entries the candidate is surest of."""
    return TypeAdapter(list[Flip]).validate_json(content)


def decode_label_suspects(content: bytes) -> list[LabelSuspect]:
    """Read `LABEL_AUDIT_FILE`, the likeliest errors first."""
    return TypeAdapter(list[LabelSuspect]).validate_json(content)
