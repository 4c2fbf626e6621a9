"""Measure images per second from the bucket to committed rows, compared with the bare forward pass and with peers.

    make bench                    1,000 images, three interleaved rounds
    make bench-peers              the same with all peers, including Ray Data and Daft
    python -m benchmarks.ingest.throughput --images 200 --rounds 1

Our system is complete: an S3 endpoint, Postgres with a live HNSW index, and `python -m jobs ingest` in its own process.
The models are production artifacts, in each engine and precision that this processor supports. Peers process some of
the same images from a folder into memory. Each round has its own ratios, because machines are noisy.
"""

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.images import ImageFiles, enlarge_images, find_images, link_images
from benchmarks.models import INT8, ModelFolders, build_artifacts, list_formats, write_checkpoints
from benchmarks.peers.processes import PEERS, PLAIN_PEERS, Peer, PeerReport, run_peer
from benchmarks.results import Row, format_range, format_share, publish
from benchmarks.tagging_stack import (
    IngestRun,
    TaggingStack,
    delete_results,
    measure_forward,
    open_tagging_stack,
    run_ingest,
)

PEER_IMAGES = 256
LARGE_IMAGES = 400
LARGE = f"{INT8}, 1200 x 1600"
PACKAGES = ("torch", "transformers", "openvino", "nncf", "obstore", "pillow")
TARGETS = (
    "0.90 of the forward pass; 100 images/s in int8, 62 in bf16; 1 GB of memory, 2 GB with torch; first batch after "
    "4 s; 3 % of the time writing; large images at 0.85 of the speed of small ones"
)


@dataclass(frozen=True)
class Measurement:
    """A run of `ingest`, and the speed of the bare forward pass, measured right after it."""

    run: IngestRun
    forward_images_per_second: float

    @property
    def images_per_second(self) -> float:
        """Return the speed of the run."""
        speed: float = self.run.report["images_per_second"]
        return speed

    @property
    def share_of_forward(self) -> float:
        """Return the speed of the run as a share of the forward pass."""
        return self.images_per_second / self.forward_images_per_second

    @property
    def share_writing(self) -> float:
        """Return the share of the time spent writing to the database."""
        report = self.run.report
        return float(report["write_seconds"] * report["images_per_second"] / report["entries"])


@dataclass(frozen=True)
class Round:
    """One measurement of every system."""

    ours: dict[str, Measurement]
    peers: dict[str, PeerReport]

    def compare(self, images_per_second: float) -> float:
        """Return a speed as a multiple of the first peer's."""
        return images_per_second / self.peers[PEERS[0].name].images_per_second


def main() -> None:
    """Measure all rounds and publish the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--all-peers", action="store_true", help="needs the environment of make bench-peers")
    arguments = parser.parse_args()
    images = find_images(arguments.images)
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        rounds = measure_rounds(images, arguments.rounds, PEERS if arguments.all_peers else PLAIN_PEERS, Path(scratch))
    publish(
        "From the bucket to committed rows",
        f"{images} ({LARGE_IMAGES} at most of 1200 x 1600) from an S3 endpoint into Postgres with a live HNSW index, "
        "compared with the bare forward pass of the same models, ResNet-18 and a CLIP ViT-B/32 with random weights; "
        f"medians of {arguments.rounds} interleaved rounds. The peers process {PEER_IMAGES} of the images from a "
        "folder into memory.",
        list(list_rows(rounds)),
        targets=TARGETS,
        packages=PACKAGES,
    )


def measure_rounds(images: ImageFiles, count: int, peers: Sequence[Peer], scratch: Path) -> list[Round]:
    """Start a stack for each engine and precision, then measure everything ``count`` times."""
    checkpoints = write_checkpoints(scratch)
    peer_images = link_images(images.paths[:PEER_IMAGES], scratch / "images")
    with ExitStack() as opened:
        stacks = {name: opened.enter_context(stack) for name, stack in _open_stacks(images.paths, checkpoints, scratch)}
        return [
            Round(
                ours={name: _measure_ours(stack, name) for name, stack in stacks.items()},
                peers={peer.name: _measure_peer(peer, checkpoints, peer_images) for peer in peers},
            )
            for _ in range(count)
        ]


def _open_stacks(
    images: list[Path], checkpoints: ModelFolders, scratch: Path
) -> Iterator[tuple[str, AbstractContextManager[TaggingStack]]]:
    """Yield a stack for each engine and precision, and one with large images."""
    for chosen in list_formats():
        models = build_artifacts(checkpoints, chosen, images, scratch / str(chosen).replace(" ", "-"))
        yield str(chosen), open_tagging_stack(images, models)
    # The last format is int8.
    yield LARGE, open_tagging_stack(enlarge_images(images[:LARGE_IMAGES], scratch / "large"), models)


def _measure_ours(stack: TaggingStack, name: str) -> Measurement:
    delete_results(stack)
    run = run_ingest(stack)
    assert run.report["failed"] == 0, run.report
    result = Measurement(run, measure_forward(stack.models))
    speed, forward = result.images_per_second, result.forward_images_per_second
    print(f"  {name}: {speed:.1f} of {forward:.1f} images/s: {result.share_of_forward:.2f}", flush=True)
    return result


def _measure_peer(peer: Peer, checkpoints: ModelFolders, images: Path) -> PeerReport:
    report = run_peer(peer, checkpoints, images)
    print(f"  {peer.name}: {report.images_per_second:.1f} images/s", flush=True)
    return report


def list_rows(rounds: Sequence[Round]) -> Iterator[Row]:
    """Return the medians and ranges of all rounds, and the maximum memory and time to the first batch."""
    for name in rounds[0].ours:
        ours = [one.ours[name] for one in rounds]
        yield {
            "system": name,
            "images/s": format_range([one.images_per_second for one in ours], 1),
            "share of forward pass": format_range([one.share_of_forward for one in ours], 2),
            "times HF pipelines": format_range([one.compare(one.ours[name].images_per_second) for one in rounds], 1),
            "memory, GB": f"{max(one.run.peak for one in ours) / 1e9:.2f}",
            "with decoding processes, GB": f"{max(one.run.tree_peak for one in ours) / 1e9:.2f}",
            "first batch, s": round(max(one.run.first_batch_seconds for one in ours), 1),
            "time spent writing": format_share(max(one.share_writing for one in ours)),
        }
    for name in rounds[0].peers:
        peers = [one.peers[name] for one in rounds]
        yield {
            "system": name,
            "images/s": format_range([one.images_per_second for one in peers], 1),
            "times HF pipelines": format_range([one.compare(one.peers[name].images_per_second) for one in rounds], 1),
            "memory, GB": f"{max(one.peak_memory_bytes for one in peers) / 1e9:.2f}",
        }


if __name__ == "__main__":
    main()
