"""Stage 3 of retraining: build what serves a candidate, as fast as its answers allow."""

import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import openvino as ov
import torch

from jobs.connections import Connections
from jobs.database.model_versions import ModelKind, ModelVersion, insert_model_version, read_model_version
from jobs.database.trainings import read_training
from jobs.datasets.snapshot_file import Snapshot, SnapshotRow, load_snapshot
from jobs.datasets.snapshot_photos import SnapshotPhotos
from jobs.errors import PermanentError
from jobs.evaluation.classifier_scores import ClassifierAnswers
from jobs.evaluation.evaluation_record import Fidelity
from jobs.evaluation.fidelity import compare_classifiers, compare_encoders
from jobs.evaluation.fidelity_record import Attempt, write_attempts
from jobs.evaluation.served_model import ServedModel, load_served_model, load_trained_model, map_batches
from jobs.gates.fidelity_gate import describe_fidelity, find_losses
from jobs.gates.gate_policy import GatePolicy
from jobs.models.checkpoint import first_line
from jobs.models.device import Device, choose_device
from jobs.models.encoder import load_text_encoder
from jobs.models.openvino_model import list_float_precisions
from jobs.models.production import Precision, Production, write_production
from jobs.models.registry import fetch_checkpoint, upload_checkpoint
from jobs.models.torch_model import describe_checkpoint
from jobs.production.convert import convert_checkpoint, save_graph
from jobs.production.quantise import CALIBRATION_PHOTOS, quantise

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class OptimizeReport:
    """The production artifact of a candidate, and all that was tried for it, the fastest first."""

    kind: ModelKind
    trained_version_id: int
    model_version_id: int
    engine: str
    precision: Precision
    attempts: tuple[Attempt, ...]


@dataclass(frozen=True)
class _Workshop:
    """The trained model, and the photos on which its copies are made and compared with it."""

    kind: ModelKind
    checkpoint: Path
    photos: SnapshotPhotos
    snapshot: Snapshot
    test: tuple[SnapshotRow, ...]
    production: Production
    exact: Device


def optimize_candidate(connections: Connections, run_id: str, kind: ModelKind, policy: GatePolicy) -> OptimizeReport:
    """Build and register the production artifact of what a run has trained.

    The fastest engine and precision whose answers on the test images pass the fidelity gate are taken; the checkpoint
    itself in float32 passes by definition. Asked again, it builds the same artifact.

    Raises:
        PermanentError: the run has trained nothing of this kind, or its snapshot has no test images.
        RetryableError: bucket or database away.
    """
    with connections.engine.connect() as connection:
        training = read_training(connection, run_id, kind)
        if training is None:
            raise PermanentError(f"run {run_id} has trained no {kind}: run `python -m jobs train {kind}` first")
        trained = read_model_version(connection, training.model_version_id)
    with tempfile.TemporaryDirectory(prefix="production-") as scratch:
        workshop = _open_workshop(connections, kind, trained, training.snapshot_id)
        attempts, folder = _choose(workshop, connections, policy, Path(scratch))
        chosen = workshop.production if folder is None else attempts[-1]
        artifact = _assemble(workshop, folder, attempts, Path(scratch) / "artifact")
        version = _register(connections, trained, artifact, training.snapshot_id, attempts)
    report = OptimizeReport(
        kind, trained.model_version_id, version.model_version_id, chosen.engine, chosen.precision, tuple(attempts)
    )
    log.info("%s %d is served by %s %s", kind, report.model_version_id, report.engine, report.precision)
    return report


def _open_workshop(connections: Connections, kind: ModelKind, trained: ModelVersion, snapshot_id: str) -> _Workshop:
    settings = connections.settings
    folder = fetch_checkpoint(connections.store, trained, settings.model_cache)
    snapshot = load_snapshot(connections.store, connections.artifacts, snapshot_id)
    test = snapshot.part("test")
    if len(test) < 2:
        raise PermanentError(f"snapshot {snapshot_id[:12]} has {len(test)} test images, too few to compare precisions")
    return _Workshop(
        kind=kind,
        checkpoint=folder,
        photos=SnapshotPhotos(connections.store, connections.artifacts, settings.model_cache),
        snapshot=snapshot,
        test=test,
        production=describe_checkpoint(folder, kind),
        exact=choose_device(settings.device, "fp32"),
    )


def _choose(
    workshop: _Workshop, connections: Connections, policy: GatePolicy, scratch: Path
) -> tuple[list[Attempt], Path | None]:
    """Try one way after the other; the folder is that of the last, or None where none passed."""
    compare = _prepare_comparison(workshop)
    attempts: list[Attempt] = []
    for production, build in _list_ways(workshop, connections):
        folder = scratch / f"{production.engine}-{production.precision}"
        build(folder)
        write_production(folder, production)
        model = load_served_model(folder, workshop.kind, workshop.exact)
        fidelity = compare(model)
        losses = tuple(find_losses(fidelity, policy))
        attempts.append(Attempt(production.engine, production.precision, fidelity, losses))
        found = f"not taken: {'; '.join(losses)}" if losses else describe_fidelity(fidelity)
        log.info("%s by %s: %s", workshop.kind, production.describe(), found)
        if not losses:
            return attempts, folder
    return attempts, None


def _list_ways(workshop: _Workshop, connections: Connections) -> Iterator[tuple[Production, Callable[[Path], None]]]:
    """The ways that are faster than the checkpoint in float32, the fastest first, as the settings allow."""
    settings = connections.settings
    engine = settings.engine if settings.engine != "auto" else "torch" if workshop.exact.is_cuda else "openvino"
    graph = _convert(workshop) if engine == "openvino" else None
    if graph is None:
        native = choose_device(settings.device, settings.precision).precision
        if native != "fp32":
            yield (
                replace(workshop.production, precision=native, rest_precision=native),
                lambda folder: _copy(workshop.checkpoint, folder),
            )
        return
    served = replace(workshop.production, engine="openvino")
    if settings.precision in {"auto", "int8"}:
        quantised = replace(served, precision="int8", rest_precision="fp32")
        yield quantised, lambda folder: save_graph(quantise(graph, _load_calibration(workshop)), folder)
    for name in ("fp32",) if settings.precision == "fp32" else list_float_precisions():
        yield replace(served, precision=name, rest_precision=name), lambda folder: save_graph(graph, folder)


def _convert(workshop: _Workshop) -> ov.Model | None:
    """The graph of the checkpoint, or None where torch.export or OpenVINO cannot express what the model does."""
    try:
        return convert_checkpoint(workshop.checkpoint, workshop.kind)
    except RuntimeError as error:
        log.warning("the %s cannot become a graph, and stays in torch: %s", workshop.kind, first_line(error))
        return None


def _load_calibration(workshop: _Workshop) -> np.ndarray:
    """Photos that the model learned from, the first by their hashes and therefore a random sample."""
    rows = workshop.snapshot.part("train")[:CALIBRATION_PHOTOS]
    return _pixels(workshop, rows).permute(0, 2, 3, 1).contiguous().numpy()


def _pixels(workshop: _Workshop, rows: tuple[SnapshotRow, ...]) -> torch.Tensor:
    return workshop.photos.load_pixels(rows, workshop.production.geometry)


def _prepare_comparison(workshop: _Workshop) -> Callable[[ServedModel], Fidelity]:
    """Ask the checkpoint in float32 for all test photos, once; what is returned compares another way with it."""
    exact_model = load_trained_model(workshop.checkpoint, workshop.kind, workshop.exact)
    pixels = _pixels(workshop, workshop.test)
    exact = exact_model.predict(pixels)
    if workshop.kind == "classifier":
        answers = ClassifierAnswers(exact, exact_model.categories)
        labels = [row.category for row in workshop.test]
        return lambda model: compare_classifiers(
            answers, ClassifierAnswers(model.predict(pixels), model.categories), labels
        )
    with_text = [number for number, row in enumerate(workshop.test) if row.full_text]
    texts = [workshop.test[number].full_text for number in with_text]
    tower = load_text_encoder(workshop.checkpoint, workshop.exact)
    vectors = map_batches(tower.embed, texts, workshop.exact) if texts else np.empty((0, exact.shape[1]))
    return lambda model: compare_encoders(exact, model.predict(pixels), vectors, texts, with_text)


def _copy(checkpoint: Path, folder: Path) -> None:
    shutil.copytree(checkpoint, folder)


def _assemble(workshop: _Workshop, built: Path | None, attempts: list[Attempt], artifact: Path) -> Path:
    """The checkpoint, with its text tower and its references, and beside it what serves it."""
    shutil.copytree(workshop.checkpoint, artifact)
    if built is None:
        write_production(artifact, workshop.production)
    else:
        shutil.copytree(built, artifact, dirs_exist_ok=True)
    write_attempts(artifact, attempts)
    return artifact


def _register(
    connections: Connections, trained: ModelVersion, artifact: Path, snapshot_id: str, attempts: list[Attempt]
) -> ModelVersion:
    uploaded = upload_checkpoint(
        connections.store,
        connections.artifacts,
        artifact,
        trained.kind,
        data_snapshot=snapshot_id,
        built_from=trained.model_version_id,
        fidelity=[asdict(attempt) for attempt in attempts],
    )
    with connections.engine.begin() as connection:
        return insert_model_version(connection, uploaded)
