"""Time ``make demo`` and its stages in a fresh clone, measure the quality of its models, and time ``make test``.

    python -m benchmarks.scenarios.first_run [--avx2] [--only demo|test]

``--avx2`` prevents torch, oneDNN, OpenVINO and NumPy from using instructions newer than AVX2. Commit your changes
first, because the clone contains only committed files.
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
from pathlib import Path

from benchmarks.avx2 import AVX2
from benchmarks.results import Row, publish
from jobs.settings import PROJECT_ROOT

STAGE = "-- "
"""Prefix of the lines with which `make demo` announces a stage."""
DEADLINE_SECONDS = 3600
"""A command that takes longer gets SIGTERM and counts as failed."""


class CommandFailedError(Exception):
    """A command of the README failed."""


def main() -> None:
    """Time a first run and publish the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--avx2", action="store_true", help="use no instructions newer than AVX2")
    parser.add_argument("--only", choices=("demo", "test"), help="only one of the two commands")
    arguments = parser.parse_args()
    publish(
        "The first run",
        "A fresh clone: the stages of `make demo`, the tests of `make test`, and the demo's models: accuracy on test "
        "images, share of product names whose first result has the category, color and pattern of the name, and "
        'dresses among five results for "red striped dress".',
        [measure_first_run(arguments.avx2, arguments.only)],
        targets="600 s of tests; accuracy of 0.95, 0.70 of the names, 3 dresses",
        packages=["torch", "openvino", "apache-airflow"],
    )


def measure_first_run(avx2: bool, only: str | None) -> Row:
    """Clone the project into a temporary folder and run the README's two commands there."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("CATALOG_", "AIRFLOW"))}
    environment |= AVX2 if avx2 else {}
    row: dict[str, str | float | None] = {"instructions": "AVX2" if avx2 else "all"}
    with _open_clone() as clone:
        # An empty cache, as on a new machine.
        environment["UV_CACHE_DIR"] = str(clone.parent / "uv-cache")
        if only != "test":
            stages = _time_stages(clone, ["make", "demo"], environment)
            row |= {f"{stage}, s": round(seconds) for stage, seconds in stages.items()}
            row["demo, s"] = round(sum(stages.values()))
            row |= _measure_quality(clone, environment)
            subprocess.run(["make", "down"], cwd=clone, env=environment, check=True)
        if only != "demo":
            # Not timed, because it is a stage of the demo.
            subprocess.run(["make", "install"], cwd=clone, env=environment, check=True)
            row["tests, s"] = round(sum(_time_stages(clone, ["make", "test"], environment).values()))
    return row


def _measure_quality(clone: Path, environment: Mapping[str, str]) -> Row:
    command = [".venv/bin/python", "-m", "benchmarks.scenarios.demo_quality"]
    finished = subprocess.run(command, cwd=clone, env=environment, check=False, stdout=subprocess.PIPE)
    quality = json.loads(finished.stdout.splitlines()[-1])
    return {
        "accuracy": round(quality["classifier_accuracy"], 3),
        "names found": round(quality["names_found"], 3),
        "dresses in top 5": quality["dresses_in_top_5"],
    }


@contextmanager
def _open_clone() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="first-run-") as parent:
        clone = Path(parent) / "catalog-tagger"
        subprocess.run(["git", "clone", "--quiet", str(PROJECT_ROOT), str(clone)], check=True)
        shared = PROJECT_ROOT.parent / "shared"
        if shared.is_dir():
            # Tests on real images look for them here.
            (Path(parent) / "shared").symlink_to(shared)
        # If root runs this, Postgres runs as another user and needs access to its files.
        Path(parent).chmod(0o755)
        try:
            yield clone
        finally:
            if (clone / ".venv" / "bin" / "python").exists():
                subprocess.run(["make", "down"], cwd=clone, check=False)


def _time_stages(clone: Path, words: Sequence[str], environment: Mapping[str, str]) -> dict[str, float]:
    """Run a command and print its output. Return the seconds of each stage, in order."""
    seconds: dict[str, float] = {}
    process = subprocess.Popen(
        words, cwd=clone, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, process_group=0
    )
    assert process.stdout is not None
    stage, began = "start", time.monotonic()
    started = began
    deadline = threading.Timer(DEADLINE_SECONDS, os.killpg, (process.pid, signal.SIGTERM))
    deadline.start()
    try:
        for line in process.stdout:
            print(f"{time.monotonic() - began:7.1f}  {line}", end="", flush=True)
            if line.startswith(STAGE):
                seconds[stage] = time.monotonic() - started
                stage, started = line.removeprefix(STAGE).strip(" .\n"), time.monotonic()
        exit_code = process.wait(timeout=60)
    finally:
        deadline.cancel()
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(timeout=60)
        process.stdout.close()
    if exit_code:
        raise CommandFailedError(f"{' '.join(words)} ended with {exit_code}")
    return seconds | {stage: time.monotonic() - started}


if __name__ == "__main__":
    main()
