"""Count the violations caused by each fault, in several threads."""

import threading
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, fields

from benchmarks.results import Row

KILL_JOBS = "kill jobs"
KILL_SERVICES = "kill services and decoding processes"
BREAK_ENVIRONMENT = "break the database or the file system"
BREAK_S3 = "incorrect S3 responses"
HOSTILE_FILES = "hostile images, tables and checkpoints"


@dataclass(frozen=True)
class Violations:
    """Counts that should all be zero.

    ``lost`` and ``duplicated`` count images, labels and versions. ``hung`` counts jobs that missed their deadline and
    processes that outlived their job. ``exit_code`` counts jobs with an unexpected exit code. ``message`` counts jobs
    that printed a traceback or did not end with a one-line error.
    """

    lost: int = 0
    duplicated: int = 0
    hung: int = 0
    exit_code: int = 0
    message: int = 0

    def __add__(self, other: "Violations") -> "Violations":
        return Violations(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(self)))

    def __bool__(self) -> bool:
        return self != Violations()


class Tally:
    """Counts tries and violations of each fault. Each fault belongs to a group."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._groups: dict[str, str] = {}
        self._tries: defaultdict[str, int] = defaultdict(int)
        self._violations: defaultdict[str, Violations] = defaultdict(Violations)

    def add(self, group: str, fault: str, violations: Violations, tries: int = 1) -> None:
        """Add tries of a fault and their violations."""
        with self._lock:
            self._groups[fault] = group
            self._tries[fault] += tries
            self._violations[fault] += violations

    def is_clean(self) -> bool:
        """Return whether there are no violations."""
        return not any(self._violations.values())

    def list_faults(self) -> list[Row]:
        """Return a row for each fault."""
        return [self._make_row(fault, [fault]) for fault in self._groups]

    def list_groups(self) -> list[Row]:
        """Return a row for each group of faults."""
        return [
            self._make_row(group, [fault for fault, its_group in self._groups.items() if its_group == group])
            for group in dict.fromkeys(self._groups.values())
        ]

    def _make_row(self, name: str, faults: Iterable[str]) -> Row:
        total = sum((self._violations[fault] for fault in faults), Violations())
        counts = {one.name.replace("_", " "): getattr(total, one.name) for one in fields(Violations)}
        return {"fault": name, "tries": sum(self._tries[fault] for fault in faults), **counts}
