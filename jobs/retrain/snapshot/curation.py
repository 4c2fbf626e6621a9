"""Select the images to train on: drop duplicates, contradictory labels and rare categories."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np

from jobs.database.examples import Example, RememberedSplit
from jobs.errors import RefusedError

NEAR_DUPLICATE_BITS = 32
"""Maximum number of differing bits, out of 256, between near duplicates.

Measured on 3,409 real images: halved or recompressed copies (quality 60) differ in at most 12 bits, 99 % of the copies
cropped by 2 % differ in at most 32, and the two closest images of different clothes in 38.
"""

BLOCK_ROWS = 512
BLOCK_COLUMNS = 4096
MAX_PAIRS = 5_000_000


def find_near_duplicates(hashes: Sequence[bytes], differing_bits: int) -> np.ndarray:
    """Return the sorted positions of all pairs within ``differing_bits``: int32 [pairs, 2], first < second.

    Raises:
        RefusedError: there are too many pairs to fit in memory.
    """
    words = _as_words(hashes)
    found, count = [np.empty((0, 2), dtype=np.int32)], 0
    for row in range(0, len(words), BLOCK_ROWS):
        for column, is_near in _compare(words[row : row + BLOCK_ROWS], words[row:], differing_bits):
            pairs = np.argwhere(is_near).astype(np.int32) + np.array([row, row + column], dtype=np.int32)
            found.append(pairs[pairs[:, 0] < pairs[:, 1]])
            count += len(found[-1])
        if count > MAX_PAIRS:
            raise RefusedError(
                f"more than {MAX_PAIRS:,} pairs of images differ in at most {differing_bits} of 256 bits. Lower this "
                "number, or remove placeholder images from the labels"
            )
    pairs = np.concatenate(found)
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def has_near_duplicate(hashes: Sequence[bytes], others: Sequence[bytes], differing_bits: int) -> np.ndarray:
    """Return whether any of ``others`` differs from each image in at most ``differing_bits``: bool [images]."""
    words, other_words = _as_words(hashes), _as_words(others)
    has_near = np.zeros(len(words), dtype=bool)
    for row in range(0, len(words), BLOCK_ROWS):
        for _, is_near in _compare(words[row : row + BLOCK_ROWS], other_words, differing_bits):
            has_near[row : row + BLOCK_ROWS] |= is_near.any(axis=1)
    return has_near


def _as_words(hashes: Sequence[bytes]) -> np.ndarray:
    """Convert to uint64 [images, 4]."""
    return np.frombuffer(b"".join(hashes), dtype=np.uint64).reshape(-1, 4)


def _compare(rows: np.ndarray, columns: np.ndarray, differing_bits: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yield each block of columns: its start, and which of its columns are close to each row, bool [rows, columns]."""
    for start in range(0, len(columns), BLOCK_COLUMNS):
        block = columns[start : start + BLOCK_COLUMNS]
        # Not uint8: an image and its negative differ in all 256 bits.
        distances = np.zeros((len(rows), len(block)), dtype=np.uint16)
        for word in range(rows.shape[1]):
            distances += np.bitwise_count(rows[:, None, word] ^ block[None, :, word])
        yield start, distances <= differing_bits


EXACT_DUPLICATE = "exact_duplicate"
CONTRADICTORY_LABEL = "contradictory_label"
NEAR_DUPLICATE = "near_duplicate"
RARE_CATEGORY = "rare_category"

MAX_REPORTED_CONTRADICTIONS = 20


@dataclass(frozen=True)
class CuratedImage:
    """An image with one category. ``full_text`` is empty if none of its labels has a text."""

    content_hash: bytes
    perceptual_hash: bytes
    category: str
    full_text: str
    group_name: str


@dataclass(frozen=True)
class Contradiction:
    """Two labels that contradict each other. ``first`` and ``second`` name the source and key of each."""

    first: str
    first_category: str
    second: str
    second_category: str


@dataclass(frozen=True)
class Curation:
    """Result of a selection. ``examples`` counts the selected images and everything that was dropped.

    ``rare_categories`` counts the images of each dropped category. ``contradictions`` lists the first 20.
    """

    examples: int
    images: tuple[CuratedImage, ...]
    dropped: dict[str, int]
    rare_categories: dict[str, int]
    contradictions: tuple[Contradiction, ...]

    def without_categories(self, categories: Collection[str]) -> "Curation":
        """Drop all images of the given categories and count them as rare."""
        counts = Counter(image.category for image in self.images if image.category in categories)
        return replace(
            self,
            images=tuple(image for image in self.images if image.category not in counts),
            dropped=self.dropped | {RARE_CATEGORY: self.dropped[RARE_CATEGORY] + counts.total()},
            rare_categories=dict(sorted((self.rare_categories | counts).items())),
        )


LabelsOfImage = tuple[Example, ...]
"""All labels of images with the same bytes."""


def curate_examples(
    examples: Iterable[Example],
    memory: Mapping[bytes, RememberedSplit],
    near_duplicate_bits: int,
    min_images_per_category: int,
) -> Curation:
    """Select the images to train on. ``examples`` must be sorted by content hash.

    Of near duplicates, keep one that was ever in test, otherwise one that was ever in train, otherwise the first.
    """
    images = [tuple(labels) for _, labels in groupby(examples, key=lambda example: example.content_hash)]
    images.sort(key=lambda labels: (_rank_side(memory.get(labels[0].content_hash)), labels[0].content_hash))
    pairs = find_near_duplicates([labels[0].perceptual_hash for labels in images], near_duplicate_bits)

    contradictions = _find_contradictions(images, pairs)
    is_contradictory = np.zeros(len(images), dtype=bool)
    is_contradictory[contradictions] = True
    is_near = _choose_near_duplicates(pairs, is_contradictory)
    unique = tuple(_merge_labels(images[position]) for position in np.flatnonzero(~is_contradictory & ~is_near))
    dropped = {
        EXACT_DUPLICATE: sum(len(images[position]) - 1 for position in np.flatnonzero(~is_contradictory)),
        CONTRADICTORY_LABEL: sum(len(images[position]) for position in np.flatnonzero(is_contradictory)),
        NEAR_DUPLICATE: int(np.count_nonzero(is_near)),
        RARE_CATEGORY: 0,
    }
    shown = tuple(
        _describe_contradiction(images[first], images[second])
        for first, second in contradictions[:MAX_REPORTED_CONTRADICTIONS]
    )
    curation = Curation(sum(map(len, images)), unique, dropped, {}, shown)
    counts = Counter(image.category for image in unique)
    return curation.without_categories({name for name, count in counts.items() if count < min_images_per_category})


def join_text(title: str, description: str) -> str:
    """Join title and description. A description that starts with the title is returned alone."""
    title, description = " ".join(title.split()), " ".join(description.split())
    if not title or description.casefold().startswith(title.casefold()):
        return description
    if not description:
        return title
    return f"{title} {description}" if title.endswith((".", "!", "?")) else f"{title}. {description}"


def _rank_side(side: RememberedSplit | None) -> int:
    return {"test": 0, "train": 1, None: 2}[side]


def _find_contradictions(images: Sequence[LabelsOfImage], pairs: np.ndarray) -> np.ndarray:
    """Return pairs whose labels disagree. An image with contradictory labels of its own is paired with itself."""
    categories = [sorted({label.category for label in labels}) for labels in images]
    numbers = {
        name: number for number, name in enumerate(sorted({name for of_image in categories for name in of_image}))
    }
    category = np.array([numbers[of_image[0]] for of_image in categories], dtype=np.int32)
    is_ambiguous = np.array([len(of_image) > 1 for of_image in categories], dtype=bool)
    first, second = pairs.T
    alone = np.flatnonzero(is_ambiguous).astype(pairs.dtype)
    disagree = (category[first] != category[second]) | is_ambiguous[first] | is_ambiguous[second]
    return np.concatenate([np.column_stack([alone, alone]), pairs[disagree]])


def _choose_near_duplicates(pairs: np.ndarray, is_contradictory: np.ndarray) -> np.ndarray:
    """Mark near duplicates to drop: bool [images]. Drop the second of each pair unless the first was dropped."""
    is_dropped = np.zeros_like(is_contradictory)
    pairs = pairs[~is_contradictory[pairs].any(axis=1)]
    # Pairs are sorted, so all pairs that could drop ``first`` come before the pairs in which it is first.
    for first, start, count in zip(*np.unique(pairs[:, 0], return_index=True, return_counts=True), strict=True):
        if not is_dropped[first]:
            is_dropped[pairs[start : start + count, 1]] = True
    return is_dropped


def _merge_labels(labels: LabelsOfImage) -> CuratedImage:
    texts = [join_text(label.title, label.description) for label in labels]
    first = labels[0]
    return CuratedImage(
        first.content_hash,
        first.perceptual_hash,
        first.category,
        next(filter(None, texts), ""),
        first.group_name,
    )


def _describe_contradiction(first: LabelsOfImage, second: LabelsOfImage) -> Contradiction:
    label, other = next((one, two) for one in first for two in second if one.category != two.category)
    return Contradiction(
        f"{label.source}/{label.source_key}", label.category, f"{other.source}/{other.source_key}", other.category
    )
