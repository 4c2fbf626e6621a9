"""What went wrong under each fault, counted by several threads."""

import threading
from collections import defaultdict
from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Harm:
    """What one try cost; every count should be zero.

    ``lost`` and ``duplicated`` count photos, labels and versions, ``hung`` jobs past their deadline and processes that
    outlive their job, ``exit_code`` jobs that ended with another code than they should, ``message`` those that wrote a
    traceback, or not one line that says what is wrong.
    """

    lost: int = 0
    duplicated: int = 0
    hung: int = 0
    exit_code: int = 0
    message: int = 0

    def __add__(self, other: "Harm") -> "Harm":
        return Harm(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(self)))

    def __bool__(self) -> bool:
        return self != Harm()


class Ledger:
    """The table that a run of the benchmark prints."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tries: defaultdict[str, int] = defaultdict(int)
        self._harm: defaultdict[str, Harm] = defaultdict(Harm)

    def add(self, fault: str, harm: Harm, tries: int = 1) -> None:
        """Count tries under a fault, and what they cost."""
        with self._lock:
            self._tries[fault] += tries
            self._harm[fault] += harm

    def is_clean(self) -> bool:
        """Whether nothing went wrong."""
        return not any(self._harm.values())

    def format(self) -> list[str]:
        """The lines of a table in Markdown."""
        columns = [one.name.replace("_", " ") for one in fields(Harm)]
        lines = [f"| fault | tries | {' | '.join(columns)} |", f"|---|---|{'---|' * len(columns)}"]
        for fault, tries in self._tries.items():
            counts = [getattr(self._harm[fault], one.name) for one in fields(Harm)]
            lines.append(f"| {fault} | {tries} | {' | '.join(map(str, counts))} |")
        return lines
