"""How good a classifier the defaults train, on real photos under the default gates; the figures go into the docs.

    python -m benchmarks.training.quality
    python -m benchmarks.training.quality --photos 600

A new head on the frozen backbone becomes the first champion and tags a shop, whose photos are the validation part.
Then the default training on all labels has to pass every gate under its default, compared with that champion, and
tags the shop again. Photos of one person are never on both sides of a split. The two gates on speed are left open,
since other work may share the machine. With ``--photos`` fewer are taken, and the docs stay as they are.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, text

from benchmarks.empty_stack import open_empty_stack
from benchmarks.machine import describe_machine
from benchmarks.marked_block import replace_block
from fixtures.pretrained import FOLDER_VARIABLE, find_pretrained
from fixtures.real_photos import FOLDER, RealPhoto, list_real_photos, write_labels
from fixtures.shop import write_tiny_models
from jobs.database.engine import driver_url
from jobs.retrain.evaluate.evaluation_record import EvaluationMetrics
from jobs.settings import PROJECT_ROOT

PAGE = PROJECT_ROOT / "docs" / "benchmarks.md"
BLOCK = "quality"
MIN_RIGHT_IN_SHOP = 0.8
SETTINGS = {
    "CATALOG_TEST_SHARE": "0.2",
    "CATALOG_GATE_POLICY": str(Path(__file__).with_name("slow_machine_gates.toml")),
}
FIRST_GATES = {"CATALOG_GATE_POLICY": str(Path(__file__).with_name("first_model_gates.toml"))}


@dataclass(frozen=True)
class Trained:
    """A classifier that passed its gates and tagged the shop; ``minutes`` from its labels to the last tag."""

    minutes: float
    metrics: EvaluationMetrics
    gates: dict[str, str]
    right_in_shop: float


@dataclass(frozen=True)
class Bench:
    """A stack, and the photos of its shop with what they show."""

    environment: Mapping[str, str]
    truth: Mapping[str, str]

    def run_job(self, *words: str, **variables: str) -> None:
        """Run ``python -m jobs``; its log goes to standard error."""
        command = [sys.executable, "-m", "jobs", *words]
        environment = {**os.environ, **SETTINGS, **self.environment, **variables}
        finished = subprocess.run(command, cwd=PROJECT_ROOT, env=environment, stdout=subprocess.DEVNULL, check=False)
        if finished.returncode:
            sys.exit(f"{' '.join(words)} failed with {finished.returncode}: the log is above")

    def query(self, statement: str, **parameters: Any) -> Sequence[Any]:
        """The rows of a statement."""
        engine = create_engine(driver_url(self.environment["CATALOG_DATABASE_URL"]))
        with engine.connect() as connection:
            rows = connection.execute(text(statement), parameters).all()
        engine.dispose()
        return rows


def main() -> None:
    """Train both, print figures, and write them into the docs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, help="at most so many, instead of all")
    arguments = parser.parse_args()
    weights = find_pretrained()
    if not FOLDER.is_dir() or not weights.is_dir():
        sys.exit(f"no real photos or no pretrained backbone: set CATALOG_REAL_PHOTOS and {FOLDER_VARIABLE}")
    photos = list_real_photos()
    if arguments.photos:
        photos = photos[:: -(-len(photos) // arguments.photos)]
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch, open_empty_stack() as environment:
        chosen = {"CATALOG_MODEL_CACHE": f"{scratch}/models", "CATALOG_CLASSIFIER_BASE": str(weights)}
        first, candidate = measure(environment | chosen, photos, Path(scratch))
    lines = describe(first, candidate)
    print("\n".join(lines))
    if not arguments.photos:
        replace_block(PAGE, BLOCK, lines)
    if candidate.right_in_shop < MIN_RIGHT_IN_SHOP:
        sys.exit(f"{candidate.right_in_shop:.1%} of the shop are tagged right: {MIN_RIGHT_IN_SHOP:.0%} are needed")


def measure(environment: Mapping[str, str], photos: list[RealPhoto], scratch: Path) -> tuple[Trained, Trained]:
    """Fill the shop, and train the first champion and the candidate that replaces it."""
    shop = [photo for photo in photos if photo.part == "validation"]
    bench = Bench(environment, {photo.path.name: photo.category for photo in shop})
    fill_shop(bench, shop, scratch)
    (scratch / "labels").mkdir()
    bench.run_job("import-labels", "csv", str(write_labels(photos, scratch / "labels")), "--name=clothing")
    train = ("retrain", "--kinds=classifier")
    started = time.monotonic()
    bench.run_job(*train, "--run=head", "--classifier-freeze=backbone", **FIRST_GATES)
    bench.run_job("ingest")
    first = read_trained(bench, "head", started)
    started = time.monotonic()
    bench.run_job(*train, "--run=default")
    return first, read_trained(bench, "default", started)


def fill_shop(bench: Bench, shop: list[RealPhoto], scratch: Path) -> None:
    """Upload the photos under names that do not tell their category, and take some encoder into use."""
    from fixtures.champions import make_champion
    from jobs.connections import connect
    from jobs.settings import make_settings

    with connect(make_settings(bench.environment)) as connections:
        for photo in shop:
            connections.store.upload(photo.path, connections.source / photo.path.name)
        make_champion(connections, write_tiny_models(scratch / "tiny").encoder, "encoder")


def read_trained(bench: Bench, run_id: str, started: float) -> Trained:
    """What the catalog says of a run, and how its classifier tagged the shop."""
    minutes = (time.monotonic() - started) / 60
    [(evaluation_id, record)] = bench.query(
        "SELECT evaluation_id, metrics FROM catalog.evaluations WHERE run_id = :run", run=run_id
    )
    gates = bench.query("SELECT gate, verdict FROM catalog.gate_decisions WHERE evaluation_id = :id", id=evaluation_id)
    tags = bench.query("SELECT object_key, category FROM catalog.current_image_tags")
    right = sum(bench.truth[key] == category for key, category in tags)
    return Trained(minutes, EvaluationMetrics.from_record(record), dict(map(tuple, gates)), right / len(bench.truth))


def describe(first: Trained, candidate: Trained) -> list[str]:
    """The figures as Markdown."""
    machine = describe_machine("torch", "transformers", "openvino")
    return [
        f"`make quality`, {datetime.now(UTC):%Y-%m-%d}, {machine['cores']} cores of {machine['processor']}:",
        "",
        "| trained | test photos | accuracy | top 3 | smallest recall | calibration error | gates passed | "
        "shop tagged right | served | minutes |",
        "|---|---|---|---|---|---|---|---|---|---|",
        describe_row("head alone, frozen backbone, wider gates", first),
        describe_row("the defaults, default gates", candidate),
    ]


def describe_row(name: str, trained: Trained) -> str:
    """One line of the table."""
    metrics, verdicts = trained.metrics, list(trained.gates.values())
    scores, served, serving = metrics.classifier, metrics.served, metrics.serving
    assert scores is not None
    assert served is not None
    assert serving is not None
    recalls = {name: recall for name, recall in scores.recall_by_category.items() if recall is not None}
    rarest = min(recalls, key=recalls.__getitem__)
    cells = [
        name,
        f"{scores.images}",
        f"{scores.correct / scores.images:.3f}",
        f"{scores.top_3_correct / scores.images:.3f}",
        f"{recalls[rarest]:.2f}, {rarest}, of {scores.images_by_category[rarest]}",
        f"{scores.expected_calibration_error:.3f}",
        f"{verdicts.count('passed')} of {len(verdicts) - verdicts.count('skipped')}",
        f"{trained.right_in_shop:.3f}",
        f"{served.engine} {served.precision}, {serving.images_per_second:.0f} images/s",
        f"{trained.minutes:.1f}",
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
