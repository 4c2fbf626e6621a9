"""Stage 1 of retraining, snapshot: freeze all labels into an immutable data set, split without leaks."""

import logging
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Self

from sqlalchemy import Connection

from jobs.connections import Connections
from jobs.database.examples import (
    RememberedSplit,
    insert_snapshot,
    lock_split_memory,
    read_split_memory,
    remember_splits,
    stream_examples,
)
from jobs.errors import RefusedError
from jobs.progress import show_progress
from jobs.retrain.labels.import_labels import import_catalog_labels
from jobs.retrain.snapshot.curation import NEAR_DUPLICATE_BITS, Contradiction, CuratedImage, Curation, curate_examples
from jobs.retrain.snapshot.leaks import require_no_leak
from jobs.retrain.snapshot.snapshot_file import SPLITS, Snapshot, SnapshotRow, Split, encode_snapshot, make_snapshot
from jobs.retrain.snapshot.split import split_groups
from jobs.settings import Settings
from jobs.storage.locations import snapshot_location

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SnapshotSettings:
    """Settings of a snapshot. ``validation_share`` is relative to the images that are not in test.

    Images that differ in at most ``near_duplicate_bits`` of 256 bits are near duplicates.
    """

    test_share: float = 0.1
    validation_share: float = 0.1
    near_duplicate_bits: int = NEAR_DUPLICATE_BITS
    min_images_per_category: int = 10

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Select the settings of this stage."""
        return cls(settings.training.test_share)

    def __post_init__(self) -> None:
        if not (0 < self.test_share <= 0.5 and 0 < self.validation_share <= 0.5):
            raise ValueError("test_share and validation_share must be above 0 and at most 0.5")
        if not 0 <= self.near_duplicate_bits < 128:
            raise ValueError(
                "near_duplicate_bits must be from 0 to 127, since unrelated images differ in about 128 bits"
            )


@dataclass(frozen=True)
class SnapshotReport:
    """Result of a snapshot. ``examples`` is ``images`` plus the sum of ``dropped``.

    ``without_text`` counts images that only a classifier can train on. ``rare_categories`` counts the images of each
    category that was left out. ``contradictions`` lists the first 20.
    """

    snapshot_id: str
    artifact_uri: str
    examples: int
    images: int
    images_by_split: dict[str, int]
    images_by_category: dict[str, dict[str, int]]
    groups: int
    without_text: int
    dropped: dict[str, int]
    rare_categories: dict[str, int]
    contradictions: tuple[Contradiction, ...]
    seconds: float


def take_snapshot(connections: Connections, settings: SnapshotSettings) -> SnapshotReport:
    """Freeze the current labels. The same labels always give the same snapshot.

    Raises:
        RefusedError: there are too few labels to train and test on.
    """
    started = time.perf_counter()
    import_catalog_labels(connections)
    with show_progress("snapshot") as progress, connections.engine.begin() as connection:
        progress.report("removing duplicates")
        lock_split_memory(connection)
        memory = read_split_memory(connection)
        curation = curate_examples(
            stream_examples(connection), memory, settings.near_duplicate_bits, settings.min_images_per_category
        )
        curation, snapshot = _split_images(curation, memory, settings)
        _require_splits(snapshot, curation, settings)
        progress.report("checking for leaks")
        require_no_leak(snapshot, settings.near_duplicate_bits)
        progress.report("storing the snapshot")
        location = snapshot_location(connections.artifacts, snapshot.snapshot_id)
        connections.store.write(location, encode_snapshot(snapshot))
        report = _make_report(snapshot, str(location), curation, time.perf_counter() - started)
        insert_snapshot(connection, snapshot.snapshot_id, report.artifact_uri, asdict(report))
        _remember(connection, snapshot)
    _log_report(report)
    return report


def _split_images(
    curation: Curation, memory: Mapping[bytes, RememberedSplit], settings: SnapshotSettings
) -> tuple[Curation, Snapshot]:
    splits = split_groups(curation.images, memory, settings.test_share, settings.validation_share)
    # A category whose images all have to stay in test cannot be learned.
    learned = {image.category for image in curation.images if splits[image.group_name] == "train"}
    curation = curation.without_categories({image.category for image in curation.images} - learned)
    return curation, make_snapshot([_make_row(image, splits[image.group_name]) for image in curation.images])


def _make_row(image: CuratedImage, split: Split) -> SnapshotRow:
    return SnapshotRow(
        image.content_hash.hex(), image.perceptual_hash.hex(), image.category, image.full_text, image.group_name, split
    )


def _require_splits(snapshot: Snapshot, curation: Curation, settings: SnapshotSettings) -> None:
    if len(snapshot.categories) < 2:
        raise RefusedError(
            f"{curation.examples} labels leave {len(snapshot.categories)} categories with at least "
            f"{settings.min_images_per_category} different images, but a model needs 2 (dropped: "
            f"{_list_counts(curation.dropped) or 'none'}). Import more labels with `catalog import-labels`"
        )
    images = Counter(row.split for row in snapshot.rows)
    empty = [split for split in SPLITS if not images[split]]
    if empty:
        groups = len({row.group_name for row in snapshot.rows})
        raise RefusedError(
            f"no images for {' and '.join(empty)}: {len(snapshot.rows)} images in {groups} groups cannot be split, "
            "because a group is never split and each category needs one group to train on. Import labels of more groups"
        )


def _remember(connection: Connection, snapshot: Snapshot) -> None:
    test = [bytes.fromhex(row.content_hash) for row in snapshot.rows if row.split == "test"]
    train = [bytes.fromhex(row.content_hash) for row in snapshot.rows if row.split != "test"]
    remember_splits(connection, snapshot.snapshot_id, test, "test")
    remember_splits(connection, snapshot.snapshot_id, train, "train")


def _make_report(snapshot: Snapshot, artifact_uri: str, curation: Curation, seconds: float) -> SnapshotReport:
    images = Counter((row.category, row.split) for row in snapshot.rows)
    return SnapshotReport(
        snapshot_id=snapshot.snapshot_id,
        artifact_uri=artifact_uri,
        examples=curation.examples,
        images=len(snapshot.rows),
        images_by_split={split: len(snapshot.part(split)) for split in SPLITS},
        images_by_category={name: {split: images[name, split] for split in SPLITS} for name in snapshot.categories},
        groups=len({row.group_name for row in snapshot.rows}),
        without_text=sum(not row.full_text for row in snapshot.rows),
        dropped=curation.dropped,
        rare_categories=curation.rare_categories,
        contradictions=curation.contradictions,
        seconds=round(seconds, 3),
    )


def _log_report(report: SnapshotReport) -> None:
    log.info(
        "%d labels: %d images in %d groups, %d without text",
        report.examples,
        report.images,
        report.groups,
        report.without_text,
    )
    log.info("dropped: %s", _list_counts(report.dropped) or "none")
    width = max(map(len, report.images_by_category))
    log.info("%-*s %10s %10s %10s", width, "category", *SPLITS)
    for category, images in report.images_by_category.items():
        log.info("%-*s %10d %10d %10d", width, category, *images.values())
        if not images["test"]:
            log.warning("category %s has no test images. Import labels of more groups of this category", category)
    log.info("%-*s %10d %10d %10d", width, "all", *report.images_by_split.values())
    for category, images_left in report.rare_categories.items():
        log.warning("category %s is left out: %d images are too few", category, images_left)
    for pair in report.contradictions:
        log.warning(
            "contradictory labels: %s is %s, but %s is %s",
            pair.first,
            pair.first_category,
            pair.second,
            pair.second_category,
        )
    log.info("snapshot %s in %.1f s", report.snapshot_id, report.seconds)


def _list_counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count)
