"""Images per second from bucket to committed rows, beside the bare forward pass of the same models and other ways.

    make bench                          1,000 photos, three interleaved rounds
    python -m benchmarks.ingest.throughput --photos 200 --rounds 1

Everything of ours is real: an S3 endpoint, Postgres with a live HNSW index, and the job's own command in a process of
its own. ResNet-18 and a CLIP of ViT-B/32 size have random weights, on which speed does not depend, as production
artifacts of each engine and precision that this processor has. Plain pipelines of Hugging Face and a DataLoader of
torch answer some of the same photos beside them, from a folder to memory. A round times all of them, one after the
other; ratios are taken inside a round, since machines are noisy.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.filled_stack import FilledStack, forget_answers, measure_forward, open_filled_stack, run_ingest
from benchmarks.machine import describe_machine, show_range
from benchmarks.materials import (
    Checkpoints,
    Photos,
    Way,
    build_artifacts,
    enlarge_photos,
    find_photos,
    link_photos,
    list_ways,
    load_calibration,
    write_checkpoints,
)
from benchmarks.peers.processes import PEERS, PEERS_PYTHON, Peer, PeerReport, measure
from jobs.settings import PROJECT_ROOT

PEER_PHOTOS = 256
LARGE_PHOTOS = 400
COLUMN_WIDTHS = (33, 19, 20, 22, 17, 11)
LARGE = "openvino int8, 1200 x 1600"
PLAIN_PEERS = tuple(
    peer for peer in PEERS if peer.name in {"two Hugging Face pipelines, fp32", "torch DataLoader, bf16"}
)


@dataclass(frozen=True)
class Measurement:
    """Of one way in one round; memory in bytes, of the tagging process and with its decoding processes."""

    images_per_second: float
    forward_images_per_second: float
    peak_memory_bytes: int
    peak_tree_memory_bytes: int
    first_batch_seconds: float
    seconds_by_stage: dict[str, float]
    waiting_shares: dict[str, float]

    @property
    def share_of_forward(self) -> float:
        """Of the bare forward pass, measured right after it."""
        return self.images_per_second / self.forward_images_per_second


@dataclass(frozen=True)
class Round:
    """Everything once; the peer that stands first is what all are compared with."""

    ours: dict[str, Measurement]
    peers: dict[str, PeerReport]

    def compare(self, images_per_second: float) -> float:
        """How many times as fast as the first peer."""
        return images_per_second / self.peers[PLAIN_PEERS[0].name].images_per_second


def main() -> None:
    """Run the benchmark, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, default=PROJECT_ROOT / ".local" / "bench.json")
    arguments = parser.parse_args()
    photos = find_photos(arguments.photos)
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        rounds = measure_rounds(photos, arguments.rounds, Path(scratch))
    summary = {
        **describe_machine("torch", "transformers", "openvino", "nncf", "obstore", "pillow"),
        "photos": len(photos.paths),
        "photo_kind": photos.kind,
        "rounds": [asdict(one) for one in rounds],
    }
    arguments.json.parent.mkdir(exist_ok=True)
    arguments.json.write_text(json.dumps(summary, indent=2))
    print(f"\n{len(photos.paths)} {photos.kind}; {summary['cores']} cores of {summary['processor']}")
    print("\n".join(write_table(rounds)))


def measure_rounds(photos: Photos, count: int, scratch: Path) -> list[Round]:
    """Build what is measured, and measure it that many times."""
    checkpoints = write_checkpoints(scratch)
    peer_photos = link_photos(photos.paths[:PEER_PHOTOS], scratch / "photos")
    with ExitStack() as opened:
        stacks = {name: opened.enter_context(stack) for name, stack in _open_stacks(photos.paths, checkpoints, scratch)}
        return [
            Round(
                ours={name: _measure_way(stack, name) for name, stack in stacks.items()},
                peers={peer.name: _measure_peer(peer, checkpoints, peer_photos) for peer in PLAIN_PEERS},
            )
            for _ in range(count)
        ]


def _open_stacks(
    photos: list[Path], checkpoints: Checkpoints, scratch: Path
) -> Iterator[tuple[str, AbstractContextManager[FilledStack]]]:
    """One for each engine and precision, and one of large photos."""
    calibration = load_calibration(photos)
    models: dict[str, Checkpoints] = {}
    for way in list_ways():
        models[str(way)] = build_artifacts(checkpoints, way, calibration, scratch / str(way).replace(" ", "-"))
        yield str(way), open_filled_stack(photos, models[str(way)], scratch / f"stack-{len(models)}")
    large = enlarge_photos(photos[:LARGE_PHOTOS], scratch / "large")
    yield LARGE, open_filled_stack(large, models[str(Way("openvino", "int8"))], scratch / "stack-large")


def _measure_way(stack: FilledStack, name: str) -> Measurement:
    forget_answers(stack)
    run = run_ingest(stack)
    report = run.report
    assert report["failed"] == 0, report
    result = Measurement(
        images_per_second=report["images_per_second"],
        forward_images_per_second=measure_forward(stack.models),
        peak_memory_bytes=run.peak,
        peak_tree_memory_bytes=run.tree_peak,
        first_batch_seconds=run.first_batch_seconds,
        seconds_by_stage={stage: report[f"{stage}_seconds"] for stage in ("read", "decode", "predict", "write")},
        waiting_shares={resource: wait["share"] for resource, wait in report["waiting"].items()},
    )
    speed, forward = result.images_per_second, result.forward_images_per_second
    print(f"  {name}: {speed:.1f} of {forward:.1f} images/s: {result.share_of_forward:.2f}", flush=True)
    return result


def _measure_peer(peer: Peer, checkpoints: Checkpoints, photos: Path) -> PeerReport:
    report = measure(peer, checkpoints, photos, PEERS_PYTHON)
    assert report
    print(f"  {peer.name}: {report.images_per_second:.1f} images/s", flush=True)
    return report


def write_table(rounds: Sequence[Round]) -> list[str]:
    """Ratios first; medians, and the range of all rounds."""
    lines = [_write_line("", "times HF pipelines", "share of forward", "images/s", "GB, with decoders", "first batch")]
    for name in rounds[0].ours:
        ours = [one.ours[name] for one in rounds]
        job = max(one.peak_memory_bytes for one in ours) / 1e9
        tree = max(one.peak_tree_memory_bytes for one in ours) / 1e9
        lines.append(
            _write_line(
                name,
                show_range([one.compare(one.ours[name].images_per_second) for one in rounds], 1),
                show_range([one.share_of_forward for one in ours], 2),
                show_range([one.images_per_second for one in ours], 1),
                f"{job:.2f}, {tree:.2f}",
                f"{max(one.first_batch_seconds for one in ours):.1f} s",
            )
        )
    for name in rounds[0].peers:
        peers = [one.peers[name] for one in rounds]
        times = show_range([one.compare(one.peers[name].images_per_second) for one in rounds], 1)
        speed = show_range([one.images_per_second for one in peers], 1)
        lines.append(
            _write_line(name, times, "", speed, f"{max(one.peak_memory_bytes for one in peers) / 1e9:.2f}", "")
        )
    return lines


def _write_line(*cells: str) -> str:
    return "  ".join(f"{cell:{width}}" for cell, width in zip(cells, COLUMN_WIDTHS, strict=True)).rstrip()


if __name__ == "__main__":
    main()
