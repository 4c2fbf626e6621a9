"""One listing of the source, alone or compared with the catalog, in a process that does nothing else.

python -m benchmarks.ingest.discover_once list|discover
"""

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jobs.connections import Connections, connect
from jobs.ingest.discover import discover_images
from jobs.settings import load_settings


def list_once(connections: Connections) -> dict[str, int]:
    """Take in all pages and keep none."""
    return {"listed": sum(len(page) for page in connections.store.list_pages(connections.source))}


def discover_once(connections: Connections) -> dict[str, int]:
    """Discover and commit."""
    with connections.engine.begin() as connection:
        return asdict(discover_images(connection, connections))


def measure(command: str) -> dict[str, Any]:
    """What was counted, in how many seconds, and the most memory that was resident, that of all imports included."""
    with connect(load_settings()) as connections:
        started = time.perf_counter()
        counts = {"list": list_once, "discover": discover_once}[command](connections)
        seconds = time.perf_counter() - started
    return {"seconds": seconds, "peak_memory_bytes": _read_peak_memory_bytes(), "counts": counts}


def _read_peak_memory_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1])))
