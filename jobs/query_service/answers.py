"""What the query service answers; service and client share these records."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Refusal:
    """Why there is no answer: one word for programs, and more for people."""

    reason: str
    detail: str


@dataclass(frozen=True)
class EmbeddedQuery:
    """A unit vector of a text or a photo, by the encoder of the live space."""

    model_version_id: int
    space_id: int
    vector: tuple[float, ...]


@dataclass(frozen=True)
class RankedCategory:
    """A category, and the classifier's confidence in it from 0 to 1."""

    category: str
    confidence: float


@dataclass(frozen=True)
class Classification:
    """The tag that the live classifier gives a photo; ``top_3`` begins with the same category."""

    model_version_id: int
    category: str
    confidence: float
    top_3: tuple[RankedCategory, ...]
