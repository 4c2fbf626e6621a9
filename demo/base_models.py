"""The checkpoints that the demo's models start from, and why these."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from demo.photos import DemoPhotos
from jobs.database.model_versions import MODEL_KINDS, ModelKind
from jobs.errors import ConfigurationError
from jobs.models.checkpoint import resolve_base
from jobs.scratch import open_scratch
from jobs.settings import Settings


@dataclass(frozen=True)
class DemoBase:
    """The folder of a checkpoint; one with random weights learns from scratch or, untrained, compares pixels only."""

    folder: Path
    has_random_weights: bool
    reason: str


def choose_bases(photos: DemoPhotos, settings: Settings, folder: Path) -> dict[ModelKind, DemoBase]:
    """Choose a base for each kind: the configured ones for the user's photos, small random ones for the sample.

    A configured base that cannot be loaded is replaced by random weights; ``folder`` keeps those.
    """
    blanks = write_random_weights(photos, folder)
    if photos.is_sample:
        reason = "a small network with random weights, enough for rendered garments and nothing to download"
        return {kind: DemoBase(blanks[kind], True, reason) for kind in MODEL_KINDS}
    return {kind: _choose_base(kind, settings, blanks[kind]) for kind in MODEL_KINDS}


def write_random_weights(photos: DemoPhotos, folder: Path) -> dict[ModelKind, Path]:
    """Write both kinds once; a run may be reading them when a second demo starts."""
    if not folder.exists():
        # Here, since torch takes seconds to import and a second demo does without.
        from demo.blank_checkpoints import write_blank_bases

        with open_scratch(folder.parent) as scratch:
            write_blank_bases(scratch / "bases", *_read_vocabulary(photos))
            (scratch / "bases").rename(folder)
    return {kind: (folder / f"blank-{kind}").resolve() for kind in MODEL_KINDS}


def _choose_base(kind: ModelKind, settings: Settings, blank: Path) -> DemoBase:
    configured = settings.training.classifier_base if kind == "classifier" else settings.training.encoder_base
    setting = f"CATALOG_{kind.upper()}_BASE"
    try:
        return DemoBase(
            resolve_base(configured, setting, settings.locations.model_cache), False, f"{configured}, from {setting}"
        )
    except ConfigurationError as error:
        return DemoBase(blank, True, f"random weights, because {error}")


def _read_vocabulary(photos: DemoPhotos) -> tuple[Sequence[str], Sequence[str]]:
    """The categories, and texts to make a tokenizer of."""
    if photos.labels is None:
        return ["photo", "other"], ["photo"]
    name, source = photos.labels
    if name == "csv":
        with source.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        return sorted({row["label"] for row in rows}), [row["text"] for row in rows]
    categories = sorted({path.relative_to(source).parts[0] for path in photos.files if path.parent != source})
    return categories, categories
