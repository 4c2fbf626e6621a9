"""Measure the classifier that the default settings train on real images, with the default gates.

    make quality
    python -m benchmarks.training.quality --images 600

The first champion is a new head on a frozen backbone. It tags a shop, whose images are the validation part. Then a
classifier from the default training on all labels must pass every default gate, compared with this champion, and tags
the shop again. Images of one contributor are never on both sides of a split. The two gates on speed are disabled,
because other work may share the machine.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, text

from benchmarks.results import Row, format_share, publish
from benchmarks.stack import open_stack
from fixtures.real_data import (
    IMAGES_VARIABLE,
    REAL_IMAGES,
    WEIGHTS_VARIABLE,
    RealImage,
    find_pretrained,
    list_real_images,
    write_labels,
)
from fixtures.shop import write_tiny_models
from jobs.database.engine import driver_url
from jobs.retrain.evaluate.evaluation_record import EvaluationMetrics
from jobs.settings import PROJECT_ROOT

MIN_CORRECT_IN_SHOP = 0.8
SETTINGS = {
    "CATALOG_TEST_SHARE": "0.2",
    "CATALOG_GATE_POLICY": str(Path(__file__).with_name("slow_machine_gates.toml")),
}
FIRST_GATES = {"CATALOG_GATE_POLICY": str(Path(__file__).with_name("first_model_gates.toml"))}


@dataclass(frozen=True)
class Trained:
    """A classifier that passed its gates and tagged the shop. ``minutes`` includes training and tagging."""

    minutes: float
    metrics: EvaluationMetrics
    gates: dict[str, str]
    correct_in_shop: float


@dataclass(frozen=True)
class ShopStack:
    """The environment of a stack, and the category of each image of its shop."""

    environment: Mapping[str, str]
    truth: Mapping[str, str]

    def run_job(self, *words: str, **variables: str) -> None:
        """Run ``python -m jobs``. Its log goes to standard error."""
        command = [sys.executable, "-m", "jobs", *words]
        environment = {**os.environ, **SETTINGS, **self.environment, **variables}
        finished = subprocess.run(command, cwd=PROJECT_ROOT, env=environment, stdout=subprocess.DEVNULL, check=False)
        if finished.returncode:
            sys.exit(f"{' '.join(words)} failed with exit code {finished.returncode}, see the log above")

    def query(self, statement: str, **parameters: Any) -> Sequence[Any]:
        """Return the rows of a statement."""
        engine = create_engine(driver_url(self.environment["CATALOG_DATABASE_URL"]))
        with engine.connect() as connection:
            rows = connection.execute(text(statement), parameters).all()
        engine.dispose()
        return rows


def main() -> None:
    """Train both classifiers, and publish the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, help="at most this many, instead of all")
    arguments = parser.parse_args()
    weights = find_pretrained()
    if not REAL_IMAGES.is_dir() or not weights.is_dir():
        sys.exit(f"{REAL_IMAGES} or {weights} does not exist. Set {IMAGES_VARIABLE} and {WEIGHTS_VARIABLE}.")
    images = list_real_images()
    if arguments.images:
        images = images[:: -(-len(images) // arguments.images)]
    base = {"CATALOG_CLASSIFIER_BASE": str(weights)}
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch, open_stack() as stack:
        first, candidate = measure(stack.environment | base, images, Path(scratch))
    publish(
        "Quality on real images",
        "Trainings on the real images, grouped by contributor: the first champion, then the defaults under the default "
        f"gates. The shop holds the {sum(image.part == 'validation' for image in images)} images of the validation "
        "part.",
        [
            make_row("head alone, frozen backbone, wider gates", first),
            make_row("the defaults, default gates", candidate),
        ],
        targets=f"{MIN_CORRECT_IN_SHOP} of the shop",
        packages=["torch", "transformers", "openvino"],
    )
    if candidate.correct_in_shop < MIN_CORRECT_IN_SHOP:
        sys.exit(
            f"{format_share(candidate.correct_in_shop)} of the shop are tagged correctly, the target is "
            f"{format_share(MIN_CORRECT_IN_SHOP)}"
        )


def measure(environment: Mapping[str, str], images: list[RealImage], scratch: Path) -> tuple[Trained, Trained]:
    """Fill the shop, then train the first champion and the candidate that replaces it."""
    shop = [image for image in images if image.part == "validation"]
    shop_stack = ShopStack(environment, {image.path.name: image.category for image in shop})
    fill_shop(shop_stack, shop, scratch)
    (scratch / "labels").mkdir()
    shop_stack.run_job("import-labels", "csv", str(write_labels(images, scratch / "labels")), "--name=clothing")
    train = ("retrain", "--kinds=classifier")
    started = time.monotonic()
    shop_stack.run_job(*train, "--run=head", "--classifier-freeze=backbone", **FIRST_GATES)
    shop_stack.run_job("ingest")
    first = read_trained(shop_stack, "head", started)
    started = time.monotonic()
    shop_stack.run_job(*train, "--run=default")
    return first, read_trained(shop_stack, "default", started)


def fill_shop(shop_stack: ShopStack, shop: list[RealImage], scratch: Path) -> None:
    """Upload the images with names that do not reveal the category, and promote an untrained encoder."""
    from fixtures.champions import make_champion
    from jobs.connections import connect
    from jobs.settings import make_settings

    with connect(make_settings(shop_stack.environment)) as connections:
        for image in shop:
            connections.store.upload(image.path, connections.source / image.path.name)
        make_champion(connections, write_tiny_models(scratch / "tiny").encoder, "encoder")


def read_trained(shop_stack: ShopStack, run_id: str, started: float) -> Trained:
    """Read the evaluation and the gates of a run, and count the images of the shop that it tagged correctly."""
    minutes = (time.monotonic() - started) / 60
    [(evaluation_id, record)] = shop_stack.query(
        "SELECT evaluation_id, metrics FROM catalog.evaluations WHERE run_id = :run", run=run_id
    )
    gates = shop_stack.query(
        "SELECT gate, verdict FROM catalog.gate_decisions WHERE evaluation_id = :id", id=evaluation_id
    )
    tags = shop_stack.query("SELECT object_key, category FROM catalog.current_image_tags")
    correct = sum(shop_stack.truth[key] == category for key, category in tags)
    return Trained(
        minutes, EvaluationMetrics.from_record(record), dict(map(tuple, gates)), correct / len(shop_stack.truth)
    )


def make_row(name: str, trained: Trained) -> Row:
    """Return the figures of a training."""
    metrics, verdicts = trained.metrics, list(trained.gates.values())
    scores, served, serving = metrics.classifier, metrics.build, metrics.serving
    assert scores is not None
    assert served is not None
    assert serving is not None
    assert scores.expected_calibration_error is not None
    recalls = {name: recall for name, recall in scores.recall_by_category.items() if recall is not None}
    rarest = min(recalls, key=recalls.__getitem__)
    return {
        "trained": name,
        "test images": scores.images,
        "accuracy": round(scores.correct / scores.images, 3),
        "top 3": round(scores.top_3_correct / scores.images, 3),
        "smallest recall": f"{recalls[rarest]:.2f}, {rarest}, of {scores.images_by_category[rarest]}",
        "calibration error": round(scores.expected_calibration_error, 3),
        "gates passed": f"{verdicts.count('passed')} of {len(verdicts) - verdicts.count('skipped')}",
        "shop tagged correctly": round(trained.correct_in_shop, 3),
        "served": f"{served.engine} {served.precision}, {serving.images_per_second:.0f} images/s",
        "minutes": round(trained.minutes, 1),
    }


if __name__ == "__main__":
    main()
