"""What became of an import: its counts, and the rows that it skipped."""

import json
import logging
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TextIO

from jobs.database.examples import Example
from jobs.labelling.label_row import BadRow
from jobs.scratch import open_scratch

log = logging.getLogger(__name__)

SKIPPED_ROWS_IN_LOG = 10
SECONDS_BETWEEN_LOG_LINES = 5


@dataclass(frozen=True)
class ImportReport:
    """What an import did; ``rows = imported + skipped``.

    ``categories`` counts the imported photos by label. ``skipped_uri`` is where the skipped rows are listed, or None
    if there are none, and ``pruned`` the number of examples that were deleted.
    """

    import_id: str
    source: str
    format: str
    rows: int
    imported: int
    skipped: int
    skipped_by_reason: dict[str, int]
    categories: dict[str, int]
    skipped_uri: str | None
    pruned: int = 0


@dataclass
class ImportTally:
    """Counts while an import runs; skipped rows go to a file as JSON lines, and the first of them to the log."""

    skipped_path: Path
    _skipped_file: TextIO
    categories: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    started: float = field(default_factory=time.perf_counter)
    _logged: float = field(default_factory=time.perf_counter)

    def add(self, outcomes: Sequence[Example | BadRow]) -> None:
        """Count what became of some rows, and say every few seconds how far the import is."""
        for outcome in outcomes:
            if isinstance(outcome, BadRow):
                self._skip(outcome)
            else:
                self.categories[outcome.category] += 1
        if time.perf_counter() - self._logged > SECONDS_BETWEEN_LOG_LINES:
            self.log_progress()

    def log_progress(self) -> None:
        """One line: how many rows, and how fast."""
        self._logged = time.perf_counter()
        imported, skipped = self.categories.total(), self.reasons.total()
        rate = (imported + skipped) / (self._logged - self.started)
        log.info("%d rows imported, %d skipped, %.0f rows/s", imported, skipped, rate)

    def close(self) -> None:
        """Write out what is left of the file."""
        self._skipped_file.close()

    def _skip(self, row: BadRow) -> None:
        self._skipped_file.write(f"{json.dumps(asdict(row))}\n")
        if self.reasons.total() < SKIPPED_ROWS_IN_LOG:
            log.warning("skipped line %d (%s): %s: %s", row.line, row.source_key or "-", row.reason, row.detail)
        self.reasons[row.reason] += 1


@contextmanager
def open_tally() -> Iterator[ImportTally]:
    """A tally whose file of skipped rows lives until the end of the block."""
    with open_scratch() as folder:
        path = folder / "skipped.jsonl"
        with path.open("w", encoding="utf-8") as file:
            yield ImportTally(path, file)
