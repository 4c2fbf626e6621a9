"""Images per second of all peers, in interleaved rounds on the same photos and checkpoints.

    make bench-peers                    1,000 photos, three rounds
    python -m benchmarks.peers --photos 200 --rounds 1

Ratios are taken inside a round, since machines are noisy.
"""

import argparse
import json
import os
import signal
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.machine import name_processor, show_range
from benchmarks.materials import Photos, find_photos, link_photos, write_checkpoints
from benchmarks.peers.processes import PEERS, PEERS_PYTHON, Peer, PeerReport, measure
from jobs.settings import PROJECT_ROOT

Round = dict[Peer, PeerReport | None]


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers-python", type=Path, default=PEERS_PYTHON, help="of the environment of Ray and Daft")
    parser.add_argument("--json", type=Path, default=PROJECT_ROOT / ".local" / "bench-peers.json")
    arguments = parser.parse_args()
    # As after Ctrl-C, the peer at work ends and the temporary folder goes.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    photos = find_photos(arguments.photos)
    rounds = measure_rounds(photos, arguments.rounds, arguments.peers_python)
    summary = {
        "processor": name_processor(),
        "cores": len(os.sched_getaffinity(0)),
        "photos": len(photos.paths),
        "photo_kind": photos.kind,
        "rounds": [{peer.name: asdict(report) if report else None for peer, report in one.items()} for one in rounds],
    }
    arguments.json.parent.mkdir(exist_ok=True)
    arguments.json.write_text(json.dumps(summary, indent=2))
    print(f"\n{summary['photos']} {photos.kind}; {summary['cores']} cores of {summary['processor']}")
    print(f"\n{'':35}  {'times the first':19}  {'images/s':20}  {'peak memory':11}")
    for peer in PEERS:
        print(describe(peer, rounds))
    print(f"\n{', '.join(collect_versions(rounds))}")


def measure_rounds(photos: Photos, count: int, peers_python: Path) -> list[Round]:
    """Each peer once in every round, one after the other."""
    with tempfile.TemporaryDirectory(prefix="bench-") as parent:
        checkpoints = write_checkpoints(Path(parent))
        folder = link_photos(photos.paths, Path(parent) / "photos")
        rounds: list[Round] = []
        for _ in range(count):
            rounds.append({})
            for peer in PEERS:
                report = measure(peer, checkpoints, folder, peers_python)
                rounds[-1][peer] = report
                if report:
                    print(f"  {peer.name}: {report.images_per_second:.1f} images/s", flush=True)
    return rounds


def describe(peer: Peer, rounds: Sequence[Round]) -> str:
    """A line of the table: medians, and the range of all rounds."""
    pairs = [(one[peer], one[PEERS[0]]) for one in rounds]
    measured = [(report, first) for report, first in pairs if report and first]
    if not measured:
        return f"{peer.name:35}  not installed: run make bench-peers"
    ratios = show_range([report.images_per_second / first.images_per_second for report, first in measured], 2)
    speeds = show_range([report.images_per_second for report, _ in measured], 1)
    memory = statistics.median(report.peak_memory_bytes / 1e9 for report, _ in measured)
    return f"{peer.name:35}  {ratios:19}  {speeds:20}  {memory:.2f} GB"


def collect_versions(rounds: Sequence[Round]) -> list[str]:
    """Of all packages; one with two versions, as in two environments, stands there twice."""
    reports = [report for one in rounds for report in one.values() if report]
    return sorted({f"{name} {version}" for report in reports for name, version in report.versions.items()})


if __name__ == "__main__":
    main()
