"""List the peers, and measure one of them in its own process."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.models import ModelFolders
from jobs.settings import PROJECT_ROOT

PEERS_PYTHON = PROJECT_ROOT / ".local" / "peers-venv" / "bin" / "python"


@dataclass(frozen=True)
class Peer:
    """A module of this package and its options. Some peers need packages that the project does not install."""

    name: str
    module: str
    options: tuple[str, ...]
    needs_own_environment: bool = False


@dataclass(frozen=True)
class PeerReport:
    """The output of a peer. The memory is the peak of its process and all descendants."""

    images: int
    seconds: float
    images_per_second: float
    peak_memory_bytes: int
    versions: dict[str, str]


PEERS = (
    Peer("two Hugging Face pipelines, fp32", "huggingface_pipelines", ("--dtype", "fp32")),
    Peer("two Hugging Face pipelines, bf16", "huggingface_pipelines", ("--dtype", "bf16")),
    Peer("torch DataLoader, fp32", "dataloader", ("--dtype", "fp32")),
    Peer("torch DataLoader, bf16", "dataloader", ("--dtype", "bf16")),
    Peer("torch DataLoader, bf16, 2 workers", "dataloader", ("--dtype", "bf16", "--workers", "2")),
    Peer("Ray Data, fp32", "ray_data", ("--dtype", "fp32"), needs_own_environment=True),
    Peer("Ray Data, bf16", "ray_data", ("--dtype", "bf16"), needs_own_environment=True),
    Peer("Daft, fp32", "daft_udf", ("--dtype", "fp32"), needs_own_environment=True),
    Peer("Daft, bf16", "daft_udf", ("--dtype", "bf16"), needs_own_environment=True),
)
"""All peers. Speeds are reported relative to the first one."""
PLAIN_PEERS = (PEERS[0], PEERS[3])
"""The peers of `make bench`."""


def run_peer(peer: Peer, checkpoints: ModelFolders, images: Path) -> PeerReport:
    """Run a peer on all images of a folder.

    Raises:
        SystemExit: the peer failed, or its environment is missing.
    """
    python = PEERS_PYTHON if peer.needs_own_environment else Path(sys.executable)
    if not python.is_file():
        sys.exit(f"{python} does not exist, {peer.name} needs it: run make bench-peers")
    folders = (checkpoints.classifier, checkpoints.encoder, images)
    command = [str(python.absolute()), "-m", f"benchmarks.peers.{peer.module}", *map(str, folders), *peer.options]
    finished = subprocess.run(command, cwd=PROJECT_ROOT, check=False, capture_output=True)
    if finished.returncode:
        sys.exit(f"{peer.name} failed: {finished.stderr.decode()[-2000:]}")
    return PeerReport(**json.loads(finished.stdout.splitlines()[-1]))
