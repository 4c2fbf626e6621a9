"""What an evaluation asks of whom, and what it gives."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jobs.connections import Connections
from jobs.database.drift_references import DriftReference
from jobs.models.device import Device
from jobs.progress import SILENT, Progress
from jobs.retrain.evaluate.evaluation_record import EvaluationMetrics
from jobs.retrain.snapshot.snapshot_file import Snapshot
from jobs.retrain.snapshot.snapshot_photos import SnapshotPhotos


@dataclass(frozen=True)
class Trial:
    """A candidate and the champion, if there is one, as folders, before the same photos on the same device."""

    connections: Connections
    snapshot: Snapshot
    photos: SnapshotPhotos
    device: Device
    candidate: Path
    champion: Path | None
    progress: Progress = SILENT


@dataclass(frozen=True)
class Measured:
    """What a trial gave; ``files`` are stored beside the evaluation, by their names."""

    metrics: EvaluationMetrics
    files: dict[str, bytes] = field(default_factory=dict)
    drift_reference: DriftReference | None = None


def encode_predictions(columns: dict[str, Sequence[Any] | np.ndarray]) -> bytes:
    """Write what was answered of each photo as Parquet."""
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink, compression="zstd")
    return sink.getvalue().to_pybytes()
