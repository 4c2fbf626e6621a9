"""Whether what a model is tested on is known from its training: the same bytes, the same group, or a near duplicate."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from jobs.errors import PermanentError
from jobs.images.decode import DecodedImage, DecodeLimits, decode_image
from jobs.images.perceptual_hash import DECODED_SIDE_PIXELS, perceptual_hash
from jobs.retrain.snapshot.curation import has_near_duplicate
from jobs.retrain.snapshot.snapshot_file import Snapshot, SnapshotRow

if TYPE_CHECKING:
    from jobs.retrain.snapshot.snapshot_photos import SnapshotPhotos

# The same shrinking as at the import, so that both see the same pixels.
LIMITS = DecodeLimits.for_labelled_photo(DECODED_SIDE_PIXELS)


@dataclass(frozen=True)
class PhotoFingerprint:
    """What a photo is known again by: the sha256 of its bytes, the 32 bytes of its perceptual hash, and its group."""

    content_hash: bytes
    perceptual_hash: bytes
    group_name: str


@dataclass(frozen=True)
class Leaks:
    """How many test photos share something with any of the others."""

    shared_contents: int
    shared_groups: int
    shared_near_duplicates: int

    @property
    def is_clean(self) -> bool:
        """Whether there is none."""
        return not (self.shared_contents or self.shared_groups or self.shared_near_duplicates)


def measure_leaks(
    test: Sequence[PhotoFingerprint], others: Sequence[PhotoFingerprint], near_duplicate_bits: int
) -> Leaks:
    """Count the test photos of which the others have the same bytes, the same group, or a near duplicate."""
    contents = {photo.content_hash for photo in others}
    groups = {photo.group_name for photo in others}
    is_near = has_near_duplicate(
        [photo.perceptual_hash for photo in test], [photo.perceptual_hash for photo in others], near_duplicate_bits
    )
    return Leaks(
        sum(photo.content_hash in contents for photo in test),
        sum(photo.group_name in groups for photo in test),
        int(np.count_nonzero(is_near)),
    )


def fingerprint_photos(photos: "SnapshotPhotos", rows: Sequence[SnapshotRow], threads: int) -> list[PhotoFingerprint]:
    """Read the photos of some rows and hash their bytes and pixels anew, in the order of the rows.

    Raises:
        PermanentError: bytes are missing, were altered, or are no photo.
    """

    def fingerprint(row: SnapshotRow) -> PhotoFingerprint:
        decoded = decode_image(photos.read(row.content_hash), LIMITS)
        if not isinstance(decoded, DecodedImage):
            raise PermanentError(f"labelled photo {row.content_hash}: {decoded.reason} ({decoded.detail})")
        return PhotoFingerprint(bytes.fromhex(row.content_hash), perceptual_hash(decoded.pixels), row.group_name)

    with ThreadPoolExecutor(threads) as pool:
        return list(photos.progress.track("checking photos for leaks", pool.map(fingerprint, rows), len(rows)))


def require_no_leak(snapshot: Snapshot, near_duplicate_bits: int) -> None:
    """Check the parts of a snapshot by what its rows say.

    Raises:
        PermanentError: test and the rest, or validation and train, share something.
    """
    train, validation, test = (
        [_read_fingerprint(row) for row in snapshot.part(split)] for split in ("train", "validation", "test")
    )
    for name, photos, others in (("test", test, train + validation), ("validation", validation, train)):
        leaks = measure_leaks(photos, others, near_duplicate_bits)
        if not leaks.is_clean:
            raise PermanentError(
                f"{name} photos of snapshot {snapshot.snapshot_id[:12]} leak into training: {leaks.shared_contents} by "
                f"their bytes, {leaks.shared_groups} by their group, {leaks.shared_near_duplicates} by a near "
                "duplicate; nothing was stored: this is a fault of the split, report it"
            )


def _read_fingerprint(row: SnapshotRow) -> PhotoFingerprint:
    return PhotoFingerprint(bytes.fromhex(row.content_hash), bytes.fromhex(row.perceptual_hash), row.group_name)
