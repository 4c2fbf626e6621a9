"""The real photos that some tests and benchmarks learn from; where they are absent, those are skipped."""

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jobs.settings import PROJECT_ROOT

FOLDER = Path(os.environ.get("CATALOG_REAL_PHOTOS") or PROJECT_ROOT.parent / "shared" / "data" / "clothing-small")


@dataclass(frozen=True)
class RealPhoto:
    """A file, what it shows, who took it, and whether it is in the training or the validation part."""

    path: Path
    category: str
    contributor: str
    part: str


def list_real_photos() -> list[RealPhoto]:
    """All of them, by the table that came with them."""
    with (FOLDER / "labels.csv").open(newline="") as file:
        return [
            RealPhoto(FOLDER / row["path"], row["label"], row["contributor"], row["split"])
            for row in csv.DictReader(file)
        ]


def write_labels(photos: Sequence[RealPhoto], folder: Path) -> Path:
    """Write a table of labels for an import, grouped by who took the photos, next to links to them."""
    table = folder / "labels.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "label", "group"])
        for photo in photos:
            (folder / photo.path.name).symlink_to(photo.path)
            writer.writerow([photo.path.name, photo.category, photo.contributor])
    return table
