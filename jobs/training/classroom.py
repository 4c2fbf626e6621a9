"""What a training works with: the photos of a snapshot, the device, and a folder that outlives the process."""

from dataclasses import dataclass
from pathlib import Path

from jobs.datasets.snapshot_file import Snapshot, SnapshotRow, Split
from jobs.datasets.snapshot_photos import SnapshotPhotos
from jobs.errors import PermanentError
from jobs.models.device import Device
from jobs.progress import SILENT, Progress


@dataclass(frozen=True)
class Classroom:
    """Where a model learns; ``folder`` keeps its checkpoints."""

    snapshot: Snapshot
    photos: SnapshotPhotos
    device: Device
    folder: Path
    progress: Progress = SILENT

    def require_rows(self, split: Split, with_text: bool = False) -> tuple[SnapshotRow, ...]:
        """The rows of a part, or those of them that have a text.

        Raises:
            PermanentError: there are none.
        """
        rows = tuple(row for row in self.snapshot.part(split) if row.full_text or not with_text)
        if not rows:
            wanted = f"{split} photos with a text" if with_text else f"{split} photos"
            raise PermanentError(
                f"snapshot {self.snapshot.snapshot_id[:12]} has no {wanted}: label more products and take a new one"
            )
        return rows
