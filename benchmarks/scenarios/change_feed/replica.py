"""A replica of what the catalog says about products, built from the lines of ``catalog changes`` alone."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import IO, Any

from sqlalchemy import Connection, Engine, text

from jobs.database.product_snapshot import open_snapshot
from jobs.settings import PROJECT_ROOT

CONSUMER = "replica"
COMPARED = ("category", "confidence", "images", "images_disagree", "source", "classifier_version_id")
State = tuple[object, ...]


class Replica:
    """Applies lines. After the switch of a classifier, it reads a snapshot, as a consumer does."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.products: dict[str, State] = {}
        self.seen_at: dict[str, float] = {}
        self.lines = 0

    def load(self) -> str:
        """Read a snapshot, and return its cursor."""
        with open_snapshot(self._engine, None, with_vectors=False) as snapshot:
            rows = [row for batch in snapshot.batches for row in batch]
        self.products = {row.product_id: tuple(getattr(row, name) for name in COMPARED) for row in rows}
        return str(snapshot.cursor)

    def apply(self, line: str) -> None:
        """Apply a line."""
        change = json.loads(line)
        self.lines += 1
        self.seen_at.setdefault(change["cursor"].partition("-")[0], time.time())
        if change["kind"] == "classifier_switch":
            self.load()
        elif change["product"] is not None:
            self.products[change["product_id"]] = tuple(change["product"][name] for name in COMPARED)
        elif change["product_id"] is not None:
            self.products.pop(change["product_id"], None)

    def find_differences(self, connection: Connection) -> dict[str, tuple[State | None, State | None]]:
        """Return the products whose state differs from the source: the state there, and the one here."""
        rows = connection.execute(text(f"SELECT product_id, {', '.join(COMPARED)} FROM catalog.current_product_tags"))
        source: dict[str, State] = {row[0]: tuple(row[1:]) for row in rows}
        names = source.keys() | self.products.keys()
        return {
            name: (source.get(name), self.products.get(name))
            for name in sorted(names)
            if source.get(name) != self.products.get(name)
        }


class LineProcess:
    """A process whose lines are handled in a thread. It is killed and started again."""

    def __init__(
        self, command: Callable[[], list[str]], environment: Mapping[str, str], handle: Callable[[str], object]
    ) -> None:
        self._command = command
        self._environment = {**os.environ, **environment}
        self._handle = handle
        self._process: subprocess.Popen[str] | None = None
        self._thread: threading.Thread | None = None
        self._errors: list[BaseException] = []

    def start(self) -> None:
        """Start the process."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", *self._command()],
            cwd=PROJECT_ROOT,
            env=self._environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout
        self._thread = threading.Thread(target=self._read, args=(self._process.stdout,))
        self._thread.start()

    def _read(self, lines: IO[str]) -> None:
        try:
            for line in lines:
                # A killed process may leave half a line.
                if line.endswith("\n"):
                    self._handle(line)
        except BaseException as error:  # noqa: BLE001
            self._errors.append(error)

    def stop(self, *, kill: bool = True) -> bool:
        """End the process, and handle the lines that it has written. Return whether it was still running."""
        assert self._process
        assert self._thread
        was_running = self._process.poll() is None
        if kill:
            self._process.kill()
        else:
            self._process.terminate()
        self._process.wait(60)
        self._thread.join(60)
        assert self._process.stdout
        self._process.stdout.close()
        if self._errors:
            raise self._errors[0]
        return was_running


def describe_states(states: Mapping[str, tuple[Any, Any]], size: int = 5) -> str:
    """Return the first differences in words."""
    return "; ".join(
        f"{name}: {source} is {here} in the replica" for name, (source, here) in list(states.items())[:size]
    )
