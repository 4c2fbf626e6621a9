"""What a snapshot is worth as evidence: its size, its age, and whether test images leaked into training."""

import os
from collections import Counter
from datetime import UTC, datetime

from jobs.retrain.evaluate.evaluation_record import DataCheck
from jobs.retrain.snapshot.curation import NEAR_DUPLICATE_BITS
from jobs.retrain.snapshot.leaks import Leaks, fingerprint_photos, measure_leaks
from jobs.retrain.snapshot.snapshot_file import Snapshot
from jobs.retrain.snapshot.snapshot_photos import SnapshotPhotos


def check_data(snapshot: Snapshot, taken_at: datetime, photos: SnapshotPhotos) -> DataCheck:
    """Measure a snapshot on the bytes of its photos; ``taken_at`` says how old it is."""
    images = Counter(row.split for row in snapshot.rows)
    test_images = Counter(row.category for row in snapshot.part("test"))
    leaks = _measure_leaks(snapshot, photos)
    return DataCheck(
        train_images=images["train"],
        validation_images=images["validation"],
        test_images=images["test"],
        fewest_test_images_of_a_category=min((test_images[category] for category in snapshot.categories), default=0),
        shared_contents=leaks.shared_contents,
        shared_groups=leaks.shared_groups,
        shared_near_duplicates=leaks.shared_near_duplicates,
        age_days=(datetime.now(UTC) - taken_at).total_seconds() / 86_400,
    )


def _measure_leaks(snapshot: Snapshot, photos: SnapshotPhotos) -> Leaks:
    threads = 2 * len(os.sched_getaffinity(0))
    test = snapshot.part("test")
    others = [*snapshot.part("train"), *snapshot.part("validation")]
    return measure_leaks(
        fingerprint_photos(photos, test, threads), fingerprint_photos(photos, others, threads), NEAR_DUPLICATE_BITS
    )
