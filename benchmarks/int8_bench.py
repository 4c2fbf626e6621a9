"""A running stack whose champions are the fastest that every processor computes: for what asks how photos flow."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.ingest import Bench, _load_calibration, _open_bench
from benchmarks.materials import Way, write_checkpoints


@contextmanager
def open_int8_bench(photos: list[Path]) -> Iterator[Bench]:
    """A stack with these photos in its bucket, a live space with an index, and int8 graphs of OpenVINO."""
    with tempfile.TemporaryDirectory(prefix="bench-") as parent:
        scratch = Path(parent)
        checkpoints = write_checkpoints(scratch)
        way = Way("openvino", "int8")
        with _open_bench(photos, checkpoints, way, _load_calibration(photos), scratch) as bench:
            yield bench
