"""Photos that look alike: pairs whose perceptual hashes of 256 bits differ in few of them.

Every pair is compared, in blocks of bounded memory: exact, with no index to trust, and seconds for 44,000 photos.
"""

from collections.abc import Iterator, Sequence

import numpy as np

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
