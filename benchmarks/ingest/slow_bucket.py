"""What a bucket that answers late costs an ingest, beside the same bucket that answers at once.

    python -m benchmarks.ingest.slow_bucket
    python -m benchmarks.ingest.slow_bucket --photos 200 --rounds 1

The S3 endpoint of the local stack is asked directly, through a relay that passes everything on at once, and through one
that holds each request back for 20 ms, and 2 % of the GETs for 200 ms. The second tells what the relay itself costs,
which runs on the same cores: the delay is what separates the third from it. Everything else is as in
`benchmarks.ingest.throughput`, in int8; ratios are taken inside a round, since machines are noisy.
"""

import argparse
import json
import os
import statistics
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from benchmarks.filled_stack import FilledStack, forget_answers, open_int8_stack, run_ingest
from benchmarks.ingest.delayed_endpoint import SLOW_BUCKET, Delays, delay_endpoint
from benchmarks.machine import name_processor
from benchmarks.materials import find_photos
from jobs.settings import PROJECT_ROOT

ENDPOINT = "CATALOG_S3_ENDPOINT_URL"


@dataclass(frozen=True)
class Measurement:
    """One ingest; the share is that of all seconds in which nothing went on but reading."""

    images_per_second: float
    waited_for_bucket: float
    relay_cpu_seconds: float


@dataclass(frozen=True)
class Round:
    """The same photos from the endpoint itself, through a relay, and through one that waits."""

    direct: Measurement
    relayed: Measurement
    delayed: Measurement

    @property
    def cost_of_delay(self) -> float:
        """The share of the speed that the delay takes."""
        return 1 - self.delayed.images_per_second / self.relayed.images_per_second


def main() -> None:
    """Run the benchmark, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, default=PROJECT_ROOT / ".local" / "bench-slow-bucket.json")
    arguments = parser.parse_args()
    photos = find_photos(arguments.photos)
    with open_int8_stack(photos.paths) as stack:
        rounds = [_measure_round(stack, len(photos.paths)) for _ in range(arguments.rounds)]
    summary = {
        "processor": name_processor(),
        "cores": len(os.sched_getaffinity(0)),
        "photos": len(photos.paths),
        "photo_kind": photos.kind,
        "delays": asdict(SLOW_BUCKET),
        "rounds": [asdict(one) | {"cost_of_delay": one.cost_of_delay} for one in rounds],
    }
    arguments.json.parent.mkdir(exist_ok=True)
    arguments.json.write_text(json.dumps(summary, indent=2))
    print(f"\n{len(photos.paths)} {photos.kind}; {summary['cores']} cores of {summary['processor']}")
    _print_table(rounds, len(photos.paths))


def _measure_round(stack: FilledStack, photos: int) -> Round:
    measured = Round(
        direct=_measure(stack, None, photos),
        relayed=_measure(stack, Delays(), photos),
        delayed=_measure(stack, SLOW_BUCKET, photos),
    )
    speeds = (measured.direct, measured.relayed, measured.delayed)
    shown = ", ".join(f"{one.images_per_second:.1f}" for one in speeds)
    print(f"  direct, relayed, delayed: {shown} images/s; the delay costs {measured.cost_of_delay:.1%}", flush=True)
    return measured


def _measure(stack: FilledStack, delays: Delays | None, photos: int) -> Measurement:
    forget_answers(stack)
    with delay_endpoint(stack.environment[ENDPOINT], delays) if delays else nullcontext() as relay:
        through = replace(stack, environment=stack.environment | {ENDPOINT: relay.url}) if relay else stack
        started = relay.read_cpu_seconds() if relay else 0.0
        report = run_ingest(through).report
        used = relay.read_cpu_seconds() - started if relay else 0.0
    assert report["tagged"] + report["reused"] == photos, report
    return Measurement(report["images_per_second"], report["waiting"]["bucket"]["share"], used)


def _print_table(rounds: list[Round], photos: int) -> None:
    print(" | ".join(["bucket", "images/s", "waited for it", "CPU of the relay, ms a photo"]))
    for name, measured in (
        ("direct", [one.direct for one in rounds]),
        ("relayed", [one.relayed for one in rounds]),
        ("delayed", [one.delayed for one in rounds]),
    ):
        speed = statistics.median(one.images_per_second for one in measured)
        waited = statistics.median(one.waited_for_bucket for one in measured)
        used = statistics.median(one.relay_cpu_seconds for one in measured) / photos * 1000
        print(" | ".join([name, f"{speed:.1f}", f"{waited:.1%}", f"{used:.2f}"]))
    costs = [one.cost_of_delay for one in rounds]
    print(f"the delay costs {statistics.median(costs):.1%} ({min(costs):.1%} to {max(costs):.1%}), bar 5 %")


if __name__ == "__main__":
    main()
