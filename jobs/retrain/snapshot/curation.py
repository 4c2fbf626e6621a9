"""Choose the photos to learn from: each once, with one category that its labels agree on, near duplicates grouped."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np

from jobs.database.examples import Example, RememberedSplit
from jobs.errors import PermanentError

NEAR_DUPLICATE_BITS = 32
"""Of 3,409 real photos, each copy that was halved or compressed again (quality 60) differs in at most 12 bits, and 99 %
of those that were cropped by 2 % in at most 32; the nearest two that show different clothes differ in 38."""

BLOCK_ROWS = 512
BLOCK_COLUMNS = 4096
MOST_PAIRS = 5_000_000


def find_near_duplicates(hashes: Sequence[bytes], differing_bits: int) -> np.ndarray:
    """The pairs that differ in at most so many bits: positions, int32 [pairs, 2], the first below the second, sorted.

    Raises:
        PermanentError: there are so many that they would not fit into memory.
    """
    words = _as_words(hashes)
    found, count = [np.empty((0, 2), dtype=np.int32)], 0
    for row in range(0, len(words), BLOCK_ROWS):
        for column, is_near in _compare(words[row : row + BLOCK_ROWS], words[row:], differing_bits):
            pairs = np.argwhere(is_near).astype(np.int32) + np.array([row, row + column], dtype=np.int32)
            found.append(pairs[pairs[:, 0] < pairs[:, 1]])
            count += len(found[-1])
        if count > MOST_PAIRS:
            raise PermanentError(
                f"more than {MOST_PAIRS:,} pairs of photos differ in at most {differing_bits} of 256 bits: lower this "
                "number, or remove the placeholder photos from the labels"
            )
    pairs = np.concatenate(found)
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def has_near_duplicate(hashes: Sequence[bytes], others: Sequence[bytes], differing_bits: int) -> np.ndarray:
    """For each photo, whether any of the others differs from it in at most so many bits: bool [photos]."""
    words, other_words = _as_words(hashes), _as_words(others)
    answers = np.zeros(len(words), dtype=bool)
    for row in range(0, len(words), BLOCK_ROWS):
        for _, is_near in _compare(words[row : row + BLOCK_ROWS], other_words, differing_bits):
            answers[row : row + BLOCK_ROWS] |= is_near.any(axis=1)
    return answers


def _as_words(hashes: Sequence[bytes]) -> np.ndarray:
    """As uint64 [photos, 4]."""
    return np.frombuffer(b"".join(hashes), dtype=np.uint64).reshape(-1, 4)


def _compare(rows: np.ndarray, columns: np.ndarray, differing_bits: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yield, for each block of columns, where it starts and which rows are near which of its columns."""
    for start in range(0, len(columns), BLOCK_COLUMNS):
        block = columns[start : start + BLOCK_COLUMNS]
        # 16 bits, since a photo and its negative differ in all 256.
        distances = np.zeros((len(rows), len(block)), dtype=np.uint16)
        for word in range(rows.shape[1]):
            distances += np.bitwise_count(rows[:, None, word] ^ block[None, :, word])
        yield start, distances <= differing_bits


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
