"""Log long waits for Postgres, and close connections whose server no longer responds.

psycopg2 waits in C, where neither a signal nor a deadline of Python reaches it. TCP notices a machine that is gone; a
server that stands still keeps its connections open and never answers. So a thread looks after statements that take
long: as long as the server lets somebody in, they may take as long as they need.
"""

import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import psycopg2
from psycopg2.extensions import connection, cursor

log = logging.getLogger(__name__)

TELL_SECONDS = 30.0
"""Interval at which a long wait is logged and the server probed with a new connection."""
PROBE_SECONDS = 10
MAX_FAILED_PROBES = 3
"""Probes in a row without an answer, one each `TELL_SECONDS`, after which the server counts as gone."""


@dataclass
class _Wait:
    """A statement that a server has not answered yet."""

    waiting: "WatchedConnection"
    statement: str
    since: float
    told: float
    silences: int = 0


class _Watch:
    """All waits of this process, and the thread that looks after them as long as there is one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waits: dict[int, _Wait] = {}
        self._thread: threading.Thread | None = None

    @contextmanager
    def wait(self, waiting: "WatchedConnection", statement: str) -> Iterator[None]:
        now = time.monotonic()
        with self._lock:
            self._waits[id(waiting)] = _Wait(waiting, statement, now, now)
            if self._thread is None:
                self._thread = threading.Thread(target=self._look, name="database-watch", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._lock:
                self._waits.pop(id(waiting), None)

    def _look(self) -> None:
        while True:
            time.sleep(min(1.0, TELL_SECONDS / 4))
            now = time.monotonic()
            with self._lock:
                late = [wait for wait in self._waits.values() if now - wait.told >= TELL_SECONDS]
            for wait in late:
                wait.told = now
                self._examine(wait)

    def _examine(self, wait: _Wait) -> None:
        words = " ".join(wait.statement.split())[:100]
        log.warning("waiting for the database for %.0f s: %s", time.monotonic() - wait.since, words)
        wait.silences = 0 if wait.waiting.answers_others() else wait.silences + 1
        if wait.silences >= MAX_FAILED_PROBES:
            with self._lock:
                is_waiting = self._waits.get(id(wait.waiting)) is wait
                if is_waiting:
                    wait.waiting.cut()


_watch = _Watch()


class WatchedConnection(connection):
    """Raise OperationalError in a blocked call when the server no longer accepts connections."""

    def __init__(self, dsn: str, *arguments: Any) -> None:
        super().__init__(dsn, *arguments)
        self._address = dsn

    def cursor(self, *arguments: Any, **options: Any) -> Any:
        """A cursor whose statements are watched, unless another is asked for."""
        options.setdefault("cursor_factory", WatchedCursor)
        return super().cursor(*arguments, **options)

    def commit(self) -> None:
        """Commit."""
        with _watch.wait(self, "COMMIT"):
            super().commit()

    def rollback(self) -> None:
        """Roll back."""
        with _watch.wait(self, "ROLLBACK"):
            super().rollback()

    def answers_others(self) -> bool:
        """Whether the server lets a new connection in, within some seconds."""
        try:
            psycopg2.connect(self._address, connect_timeout=PROBE_SECONDS).close()
        except psycopg2.Error as error:
            # A server that refuses for a reason is alive: too many connections, a shutdown.
            return bool(error.pgcode) or "FATAL" in str(error)
        return True

    def cut(self) -> None:
        """Shut the socket down, which wakes the thread that is blocked on it."""
        with socket.socket(fileno=os.dup(self.fileno())) as own:
            own.shutdown(socket.SHUT_RDWR)


class WatchedCursor(cursor):
    """The statements of a `WatchedConnection`."""

    def execute(self, query: Any, arguments: Any = None) -> None:
        """Run a statement."""
        with _watch.wait(cast(WatchedConnection, self.connection), _read(query)):
            super().execute(query, arguments)

    def fetchmany(self, size: int | None = None) -> list[tuple[Any, ...]]:
        """Take rows, of a cursor with a name from the server."""
        with _watch.wait(cast(WatchedConnection, self.connection), f"FETCH FROM {self.name}"):
            return super().fetchmany(self.arraysize if size is None else size)

    def copy_expert(self, sql: Any, file: Any, size: int = 8192) -> None:
        """Run a COPY."""
        with _watch.wait(cast(WatchedConnection, self.connection), _read(sql)):
            super().copy_expert(sql, file, size)


def _read(statement: Any) -> str:
    return statement.decode(errors="replace") if isinstance(statement, bytes) else str(statement)
