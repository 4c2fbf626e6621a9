"""What a model answered when it was trained, kept in its checkpoint: the artifact must still answer the same."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from jobs.database.model_versions import ModelKind
from jobs.datasets.snapshot_file import SnapshotRow

REFERENCE_FILE = "reference_outputs.json"
REFERENCE_PHOTOS = 32


@dataclass(frozen=True)
class ReferenceOutputs:
    """Outputs by the content hash of the photo, computed in float32 from the model in memory.

    For a classifier the calibrated probability of each category, by its name; for an encoder the unit vector.
    """

    kind: ModelKind
    outputs: dict[str, dict[str, float] | list[float]]


def choose_reference_photos(rows: Sequence[SnapshotRow]) -> tuple[SnapshotRow, ...]:
    """At most 32 photos, the first by their content hashes, and therefore a random sample."""
    return tuple(sorted(rows, key=lambda row: row.content_hash)[:REFERENCE_PHOTOS])


def write_reference_outputs(folder: Path, reference: ReferenceOutputs) -> None:
    """Store the outputs with a checkpoint."""
    (folder / REFERENCE_FILE).write_bytes(TypeAdapter(ReferenceOutputs).dump_json(reference))


def read_reference_outputs(folder: Path) -> ReferenceOutputs | None:
    """The outputs that a checkpoint carries, or None where it has no such file.

    Raises:
        pydantic.ValidationError: the file has another form.
    """
    file = folder / REFERENCE_FILE
    return TypeAdapter(ReferenceOutputs).validate_json(file.read_bytes()) if file.is_file() else None
