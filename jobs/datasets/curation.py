"""From all labels to photos worth learning from: each photo once, with one category on which its labels agree.

What is dropped, by reason:
exact_duplicate      a label of bytes that another label of the same category names already
contradictory_label  labels of the same bytes, or of near duplicates, that name different categories: nobody knows which
                     of them is right, so none stays
near_duplicate       a photo that looks like one that stays
rare_category        a photo of a category with too few photos to learn and to test
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np

from jobs.database.examples import Example
from jobs.database.snapshots import RememberedSplit
from jobs.datasets.near_duplicates import find_near_duplicates

EXACT_DUPLICATE = "exact_duplicate"
CONTRADICTORY_LABEL = "contradictory_label"
NEAR_DUPLICATE = "near_duplicate"
RARE_CATEGORY = "rare_category"

SHOWN = 20
"""As many contradictions are named."""


@dataclass(frozen=True)
class CuratedPhoto:
    """A photo with one label; ``full_text`` is empty where no label of it has a text."""

    content_hash: bytes
    perceptual_hash: bytes
    category: str
    full_text: str
    group_name: str


@dataclass(frozen=True)
class Contradiction:
    """Two labels that cannot both be right; ``first`` and ``second`` are source and key."""

    first: str
    first_category: str
    second: str
    second_category: str


@dataclass(frozen=True)
class Curation:
    """``examples`` = the photos + all that were dropped; ``rare_categories`` has the photos of each.

    ``contradictions`` are the first few.
    """

    examples: int
    photos: tuple[CuratedPhoto, ...]
    dropped: dict[str, int]
    rare_categories: dict[str, int]
    contradictions: tuple[Contradiction, ...]

    def without_categories(self, categories: Collection[str]) -> "Curation":
        """Drop all photos of some categories as rare."""
        counts = Counter(photo.category for photo in self.photos if photo.category in categories)
        return replace(
            self,
            photos=tuple(photo for photo in self.photos if photo.category not in counts),
            dropped=self.dropped | {RARE_CATEGORY: self.dropped[RARE_CATEGORY] + counts.total()},
            rare_categories=dict(sorted((self.rare_categories | counts).items())),
        )


LabelsOfPhoto = tuple[Example, ...]
"""All labels of the same bytes."""


def curate_examples(
    examples: Iterable[Example],
    memory: Mapping[bytes, RememberedSplit],
    near_duplicate_bits: int,
    min_images_per_category: int,
) -> Curation:
    """Choose the photos to learn from; ``examples`` come in the order of their content hashes.

    Of photos that look alike the one that was ever in test stays, else the one that was ever in train, else the first.
    """
    photos = [tuple(labels) for _, labels in groupby(examples, key=lambda example: example.content_hash)]
    photos.sort(key=lambda labels: (_rank_side(memory.get(labels[0].content_hash)), labels[0].content_hash))
    pairs = find_near_duplicates([labels[0].perceptual_hash for labels in photos], near_duplicate_bits)

    contradictions = _find_contradictions(photos, pairs)
    is_contradictory = np.zeros(len(photos), dtype=bool)
    is_contradictory[contradictions] = True
    is_near = _choose_near_duplicates(pairs, is_contradictory)
    unique = tuple(_merge_labels(photos[position]) for position in np.flatnonzero(~is_contradictory & ~is_near))
    dropped = {
        EXACT_DUPLICATE: sum(len(photos[position]) - 1 for position in np.flatnonzero(~is_contradictory)),
        CONTRADICTORY_LABEL: sum(len(photos[position]) for position in np.flatnonzero(is_contradictory)),
        NEAR_DUPLICATE: int(np.count_nonzero(is_near)),
        RARE_CATEGORY: 0,
    }
    shown = tuple(_describe_contradiction(photos[first], photos[second]) for first, second in contradictions[:SHOWN])
    curation = Curation(sum(map(len, photos)), unique, dropped, {}, shown)
    counts = Counter(photo.category for photo in unique)
    return curation.without_categories({name for name, count in counts.items() if count < min_images_per_category})


def join_text(title: str, description: str) -> str:
    """Title and description as one text; a description that begins with the title says it alone."""
    title, description = " ".join(title.split()), " ".join(description.split())
    if not title or description.casefold().startswith(title.casefold()):
        return description
    if not description:
        return title
    return f"{title} {description}" if title.endswith((".", "!", "?")) else f"{title}. {description}"


def _rank_side(side: RememberedSplit | None) -> int:
    return {"test": 0, "train": 1, None: 2}[side]


def _find_contradictions(photos: Sequence[LabelsOfPhoto], pairs: np.ndarray) -> np.ndarray:
    """The pairs of photos, and the photos paired with themselves, whose labels name more than one category."""
    names = [sorted({label.category for label in labels}) for labels in photos]
    numbers = {name: number for number, name in enumerate(sorted({name for of_photo in names for name in of_photo}))}
    category = np.array([numbers[of_photo[0]] for of_photo in names], dtype=np.int32)
    is_torn = np.array([len(of_photo) > 1 for of_photo in names], dtype=bool)
    first, second = pairs.T
    alone = np.flatnonzero(is_torn).astype(pairs.dtype)
    disagree = (category[first] != category[second]) | is_torn[first] | is_torn[second]
    return np.concatenate([np.column_stack([alone, alone]), pairs[disagree]])


def _choose_near_duplicates(pairs: np.ndarray, is_contradictory: np.ndarray) -> np.ndarray:
    """Mark photos to drop, so that no two that stay look alike; of each pair the first stays where it can."""
    is_dropped = np.zeros_like(is_contradictory)
    pairs = pairs[~is_contradictory[pairs].any(axis=1)]
    # In their order: whether a photo stays is settled by the pairs that it is the second of.
    for first, start, count in zip(*np.unique(pairs[:, 0], return_index=True, return_counts=True), strict=True):
        if not is_dropped[first]:
            is_dropped[pairs[start : start + count, 1]] = True
    return is_dropped


def _merge_labels(labels: LabelsOfPhoto) -> CuratedPhoto:
    texts = [join_text(label.title, label.description) for label in labels]
    first = labels[0]
    return CuratedPhoto(
        first.content_hash,
        first.perceptual_hash,
        first.category,
        next(filter(None, texts), ""),
        first.group_name,
    )


def _describe_contradiction(first: LabelsOfPhoto, second: LabelsOfPhoto) -> Contradiction:
    label, other = next((one, two) for one in first for two in second if one.category != two.category)
    return Contradiction(
        f"{label.source}/{label.source_key}", label.category, f"{other.source}/{other.source_key}", other.category
    )
