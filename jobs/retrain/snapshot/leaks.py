"""Detect train/test leakage: identical bytes, shared groups, near duplicates."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from jobs.errors import PermanentError
from jobs.images.perceptual_hash import DECODED_SIDE_PIXELS, perceptual_hash
from jobs.retrain.snapshot.curation import has_near_duplicate
from jobs.retrain.snapshot.snapshot_file import SPLITS, Snapshot, SnapshotRow

if TYPE_CHECKING:
    from jobs.retrain.snapshot.snapshot_images import SnapshotImages


@dataclass(frozen=True)
class ImageFingerprint:
    """The sha256 of an image's bytes, its perceptual hash (32 bytes), and its group."""

    content_hash: bytes
    perceptual_hash: bytes
    group_name: str


@dataclass(frozen=True)
class Leaks:
    """Number of test images that share bytes or a group with other images, or are near duplicates of them."""

    shared_contents: int
    shared_groups: int
    shared_near_duplicates: int

    @property
    def is_clean(self) -> bool:
        """Return whether no leak was found."""
        return not (self.shared_contents or self.shared_groups or self.shared_near_duplicates)


def measure_leaks(
    test: Sequence[ImageFingerprint], others: Sequence[ImageFingerprint], near_duplicate_bits: int
) -> Leaks:
    """Count test images that share bytes or a group with the other images, or are near duplicates of them."""
    contents = {image.content_hash for image in others}
    groups = {image.group_name for image in others}
    is_near = has_near_duplicate(
        [image.perceptual_hash for image in test], [image.perceptual_hash for image in others], near_duplicate_bits
    )
    return Leaks(
        sum(image.content_hash in contents for image in test),
        sum(image.group_name in groups for image in test),
        int(np.count_nonzero(is_near)),
    )


def fingerprint_images(images: "SnapshotImages", rows: Sequence[SnapshotRow], threads: int) -> list[ImageFingerprint]:
    """Compute fingerprints from the stored bytes, not from the hashes in the rows. Keep the order of the rows.

    Raises:
        PermanentError: bytes are missing, were modified, or cannot be decoded.
    """

    def fingerprint(row: SnapshotRow) -> ImageFingerprint:
        # Same target size as in the import, so both compute the hash from the same pixels.
        pixels = images.decode(row.content_hash, DECODED_SIDE_PIXELS).pixels
        return ImageFingerprint(bytes.fromhex(row.content_hash), perceptual_hash(pixels), row.group_name)

    with ThreadPoolExecutor(threads) as pool:
        return list(images.progress.track("checking images for leaks", pool.map(fingerprint, rows), len(rows)))


def require_no_leak(snapshot: Snapshot, near_duplicate_bits: int) -> None:
    """Check the splits of a snapshot using the hashes and groups in its rows.

    Raises:
        PermanentError: test images leak into train or validation, or validation images into train.
    """
    train, validation, test = ([_read_fingerprint(row) for row in snapshot.part(split)] for split in SPLITS)
    for name, images, others in (("test", test, train + validation), ("validation", validation, train)):
        leaks = measure_leaks(images, others, near_duplicate_bits)
        if not leaks.is_clean:
            raise PermanentError(
                f"{name} images of snapshot {snapshot.snapshot_id[:12]} leak into training: {leaks.shared_contents} "
                f"share bytes, {leaks.shared_groups} share a group, {leaks.shared_near_duplicates} are near duplicates."
                " Nothing was stored. This is a bug in the split, please report it"
            )


def _read_fingerprint(row: SnapshotRow) -> ImageFingerprint:
    return ImageFingerprint(bytes.fromhex(row.content_hash), bytes.fromhex(row.perceptual_hash), row.group_name)
