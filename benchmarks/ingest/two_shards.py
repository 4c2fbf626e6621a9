"""Two shards at once on one machine, beside one alone: what tasks that share its cores take from each other.

    python -m benchmarks.ingest.two_shards
    python -m benchmarks.ingest.two_shards --photos 200 --rounds 1

Each is a `python -m jobs tag-shard` of one run, as Airflow starts it, in int8. Speeds come from the ledger, from the
start of the first chunk to the commit of the last; ratios are taken inside a round, since machines are noisy.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from benchmarks.filled_stack import FilledStack, forget_answers, open_int8_stack
from benchmarks.machine import name_processor
from benchmarks.materials import find_photos
from jobs.database.run_history import sum_chunks
from jobs.settings import PROJECT_ROOT


@dataclass(frozen=True)
class Measurement:
    """Some shards at once; threads are the most that one process had, and that all of its decoding processes had."""

    images_per_second: float
    threads: int
    decoding_threads: int


@dataclass(frozen=True)
class Round:
    """One shard by itself, then two at once."""

    alone: Measurement
    both: Measurement

    @property
    def share_kept(self) -> float:
        """The speed of both together, of the speed of one alone."""
        return self.both.images_per_second / self.alone.images_per_second


def main() -> None:
    """Run the benchmark, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=1000, help="in both shards together")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, default=PROJECT_ROOT / ".local" / "bench-two-shards.json")
    arguments = parser.parse_args()
    photos = find_photos(arguments.photos)
    with open_int8_stack(photos.paths) as stack:
        rounds = [_measure_round(stack, number, len(photos.paths)) for number in range(arguments.rounds)]
    summary = {
        "processor": name_processor(),
        "cores": len(os.sched_getaffinity(0)),
        "photos": len(photos.paths),
        "photo_kind": photos.kind,
        "rounds": [asdict(one) | {"share_kept": one.share_kept} for one in rounds],
    }
    arguments.json.parent.mkdir(exist_ok=True)
    arguments.json.write_text(json.dumps(summary, indent=2))
    print(f"\n{len(photos.paths)} {photos.kind}; {summary['cores']} cores of {summary['processor']}")
    _print_table(rounds)


def _measure_round(stack: FilledStack, number: int, photos: int) -> Round:
    measured = Round(
        alone=_measure(stack, f"alone-{number}", [0], photos), both=_measure(stack, f"both-{number}", [0, 1], photos)
    )
    speeds = f"{measured.alone.images_per_second:.1f}, both {measured.both.images_per_second:.1f}"
    print(f"  alone {speeds} images/s: {measured.share_kept:.2f}", flush=True)
    return measured


def _measure(stack: FilledStack, run: str, shards: Sequence[int], photos: int) -> Measurement:
    forget_answers(stack)
    half = -(-photos // 2)
    sizes = {"CATALOG_SHARD_SIZE": str(half), "CATALOG_CHUNK_SIZE": str(min(256, half))}
    environment = os.environ | stack.environment | sizes
    command = [sys.executable, "-m", "jobs"]
    subprocess.run([*command, "discover", "--run", run], env=environment, check=True, capture_output=True)
    processes = [
        subprocess.Popen(
            [*command, "tag-shard", str(shard), "--run", run],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for shard in shards
    ]
    threads = _watch_threads(processes)
    if any(process.returncode for process in processes):
        sys.exit(f"a shard of {run} failed")
    with stack.connections.engine.connect() as connection:
        totals = sum_chunks(connection, run)
    assert totals.failed == 0
    assert totals.images_per_second is not None
    return Measurement(totals.images_per_second, *threads)


def _watch_threads(processes: Sequence["subprocess.Popen[bytes]"]) -> tuple[int, int]:
    """Wait for the processes; the most threads of any of them, and of the children of any of them together."""
    own = decoding = 0
    while any(process.poll() is None for process in processes):
        for process in processes:
            try:
                seen = psutil.Process(process.pid)
                own = max(own, seen.num_threads())
                decoding = max(decoding, sum(child.num_threads() for child in seen.children(recursive=True)))
            except psutil.NoSuchProcess:
                continue
        time.sleep(0.2)
    return own, decoding


def _print_table(rounds: list[Round]) -> None:
    print(" | ".join(["shards at once", "images/s together", "threads of each", "of its decoding processes"]))
    for name, measured in (("1", [one.alone for one in rounds]), ("2", [one.both for one in rounds])):
        speed = statistics.median(one.images_per_second for one in measured)
        threads, decoding = max(one.threads for one in measured), max(one.decoding_threads for one in measured)
        print(" | ".join([name, f"{speed:.1f}", str(threads), str(decoding)]))
    shares = [one.share_kept for one in rounds]
    print(f"both keep {statistics.median(shares):.2f} ({min(shares):.2f} to {max(shares):.2f}) of one alone, bar 0.95")


if __name__ == "__main__":
    main()
