"""Time what a newcomer does: a fresh clone, ``make demo`` stage by stage, and ``make test``.

    python -m benchmarks.scenarios.first_run [--avx2] [--only demo|test]

``--avx2`` keeps torch, oneDNN, OpenVINO and numpy from using newer instructions than AVX2. Prints a table and writes
``.local/first-run.json``. Commit first: a clone holds what was committed.
"""

import argparse
import json
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.avx2 import AVX2
from benchmarks.machine import describe_machine
from jobs.settings import PROJECT_ROOT

STAGE = "-- "
"""How lines of `make demo` start that open a stage."""
DEADLINE_SECONDS = 3600
"""A command that takes longer is ended by SIGTERM, and counts as failed."""


@dataclass(frozen=True)
class Timing:
    """A stage of a command and its seconds."""

    command: str
    stage: str
    seconds: float


class CommandFailedError(Exception):
    """A command of the README ended with an error."""


def time_first_run(avx2: bool, only: str | None) -> list[Timing]:
    """Clone the project into a temporary folder and time the README's two commands there."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("CATALOG_", "AIRFLOW"))}
    environment |= AVX2 if avx2 else {}
    timings: list[Timing] = []
    with _open_clone() as clone:
        # Empty, as a newcomer's is.
        environment["UV_CACHE_DIR"] = str(clone.parent / "uv-cache")
        if only != "test":
            timings += _time_stages(clone, ["make", "demo"], environment)
            subprocess.run(["make", "down"], cwd=clone, env=environment, check=True)
        if only != "demo":
            # Without the installation, which the demo has timed.
            subprocess.run(["make", "install"], cwd=clone, env=environment, check=True)
            timings.append(_total("make test", _time_stages(clone, ["make", "test"], environment)))
    return timings


@contextmanager
def _open_clone() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="first-run-") as parent:
        clone = Path(parent) / "catalog-tagger"
        subprocess.run(["git", "clone", "--quiet", str(PROJECT_ROOT), str(clone)], check=True)
        shared = PROJECT_ROOT.parent / "shared"
        if shared.is_dir():
            # Tests with real photos look for them here.
            (Path(parent) / "shared").symlink_to(shared)
        # Postgres leaves root for a user of its own, who has to reach its files.
        Path(parent).chmod(0o755)
        try:
            yield clone
        finally:
            if (clone / ".venv" / "bin" / "python").exists():
                subprocess.run(["make", "down"], cwd=clone, check=False)


def _time_stages(clone: Path, words: Sequence[str], environment: Mapping[str, str]) -> list[Timing]:
    """Run a command, pass its lines on, and time what lies between those that open a stage."""
    timings: list[Timing] = []
    process = subprocess.Popen(
        words, cwd=clone, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, process_group=0
    )
    assert process.stdout is not None
    command, stage, started = " ".join(words), "start", time.monotonic()
    began = started
    deadline = threading.Timer(DEADLINE_SECONDS, os.killpg, (process.pid, signal.SIGTERM))
    deadline.start()
    try:
        for line in process.stdout:
            print(f"{time.monotonic() - began:7.1f}  {line}", end="", flush=True)
            if line.startswith(STAGE):
                timings.append(Timing(command, stage, time.monotonic() - started))
                stage, started = line.removeprefix(STAGE).strip(" .\n"), time.monotonic()
        exit_code = process.wait(timeout=60)
    finally:
        deadline.cancel()
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(timeout=60)
        process.stdout.close()
    if exit_code:
        raise CommandFailedError(f"{command} ended with {exit_code}")
    timings.append(Timing(command, stage, time.monotonic() - started))
    return timings


def _total(command: str, timings: Sequence[Timing]) -> Timing:
    return Timing(command, "all", sum(timing.seconds for timing in timings))


def main() -> None:
    """Time a first run and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--avx2", action="store_true", help="use no newer instructions than AVX2")
    parser.add_argument("--only", choices=("demo", "test"), help="one of the two commands")
    arguments = parser.parse_args()
    timings = time_first_run(arguments.avx2, arguments.only)
    demo = [timing for timing in timings if timing.command == "make demo"]
    if demo:
        timings.append(_total("make demo", demo))
    for timing in timings:
        print(f"{timing.command:<10} {timing.seconds:7.1f} s  {timing.stage}")
    report = {
        "machine": describe_machine("torch", "openvino", "apache-airflow"),
        "avx2": arguments.avx2,
        "timings": [asdict(timing) for timing in timings],
    }
    output = PROJECT_ROOT / ".local" / f"first-run{'-avx2' if arguments.avx2 else ''}.json"
    output.parent.mkdir(mode=0o700, exist_ok=True)
    output.write_text(json.dumps(report, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
