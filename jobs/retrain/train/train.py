"""Stage 2 of the retrain flow: train a candidate on a snapshot and register it."""

import fcntl
import hashlib
import json
import logging
import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from jobs.connections import Connections
from jobs.database.evaluations import Training, insert_training, read_training
from jobs.database.examples import require_snapshot
from jobs.database.model_versions import ModelKind, insert_model_version
from jobs.errors import RefusedError, RetryableError, TerminatedError
from jobs.models.device import choose_device
from jobs.models.registry import upload_checkpoint
from jobs.progress import Progress, open_progress
from jobs.retrain.snapshot.snapshot_file import load_snapshot
from jobs.retrain.snapshot.snapshot_images import SnapshotImages
from jobs.retrain.train.context import TrainedModel, TrainingContext
from jobs.retrain.train.epochs import is_first_process
from jobs.retrain.train.history import write_history
from jobs.retrain.train.launch import is_launched
from jobs.retrain.train.requests import ClassifierTraining, TrainingRequest, needs_all_processes
from jobs.retrain.train.train_classifier import save_classifier, train_classifier
from jobs.retrain.train.train_encoder import save_encoder, train_encoder

log = logging.getLogger(__name__)

SETTINGS_FILE = "training/settings.json"
POLL_SECONDS = 1.0
TRAININGS = "trainings"
"""The folder of unfinished trainings in the model cache."""
ABANDONED_DAYS = 15


@dataclass(frozen=True)
class TrainingReport:
    """A registered candidate. Seconds and speed refer to the process that finished the training."""

    kind: ModelKind
    model_version_id: int
    snapshot_id: str
    weights_sha256: str
    metrics: dict[str, float]
    seconds: float
    images_per_second: float | None


def train_candidate(
    connections: Connections, run_id: str, snapshot_id: str, request: TrainingRequest
) -> TrainingReport:
    """Train, store and register the candidate of a run. If the run has trained this kind already, return its report.

    After a kill, another call resumes from the last checkpoint. Under torchrun, all processes call this function. The
    first one registers the candidate, and all return the same report.

    Raises:
        NotFoundError: the snapshot does not exist.
        RefusedError: the base or the data do not fit the request.
        RetryableError: another process is training the same candidate.
        TerminatedError: the process received SIGTERM. Finished epochs are saved.
    """
    with connections.engine.connect() as connection:
        finished = _read_report(connection, run_id, request.kind)
        if not finished:
            require_snapshot(connection, snapshot_id)
    if finished and finished.snapshot_id != snapshot_id:
        raise RefusedError(
            f"run {run_id!r} has already trained its {request.kind} on snapshot {finished.snapshot_id}, not on "
            f"{snapshot_id}: start a new run"
        )
    if finished:
        log.info("%s: already trained, version %d", request.kind, finished.model_version_id)
        return finished
    started = time.perf_counter()
    folder = _choose_folder(connections, run_id, request.kind)
    # Under torchrun, only the first process reports progress.
    reported = run_id if is_first_process() else None
    with (
        _hold_folder(folder),
        _end_on_sigterm(),
        open_progress(connections.engine, reported, f"{request.kind}.train") as progress,
    ):
        _delete_abandoned(folder.parent)
        context = _open_context(connections, snapshot_id, request, folder, progress)
        if not needs_all_processes(request) and not is_first_process():
            return _wait_for_report(connections, run_id, request.kind)
        trained = _train(request, context)
        if not is_first_process():
            return _wait_for_report(connections, run_id, request.kind)
        report = _register(connections, run_id, request, context, trained, started)
        shutil.rmtree(folder)
    return report


def _read_report(connection: Connection, run_id: str, kind: ModelKind) -> TrainingReport | None:
    training = read_training(connection, run_id, kind)
    return TrainingReport(**training.report) if training else None


def _wait_for_report(connections: Connections, run_id: str, kind: ModelKind) -> TrainingReport:
    """Wait until the first process has registered the candidate. If it fails, torchrun stops this process."""
    while True:
        with connections.engine.connect() as connection:
            report = _read_report(connection, run_id, kind)
        if report:
            return report
        time.sleep(POLL_SECONDS)


def _choose_folder(connections: Connections, run_id: str, kind: ModelKind) -> Path:
    name = hashlib.sha256(f"{run_id}\0{kind}".encode()).hexdigest()[:32]
    return connections.settings.locations.model_cache / TRAININGS / name


@contextmanager
def _hold_folder(folder: Path) -> Iterator[None]:
    """Lock the folder against other trainings of the same run. The lock ends with the process."""
    folder.mkdir(parents=True, exist_ok=True)
    if not is_first_process():
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RetryableError(f"another process is training this run in {folder}: wait until it ends") from None
        yield
    finally:
        os.close(descriptor)


def delete_interrupted(cache: Path) -> int:
    """Delete the images and checkpoints of all trainings on this machine that do not run. Return how many.

    They start from the beginning if they are resumed.
    """
    return _delete_abandoned(cache / TRAININGS, days=0) if (cache / TRAININGS).is_dir() else 0


def _delete_abandoned(trainings: Path, days: float = ABANDONED_DAYS) -> int:
    """Delete the images and checkpoints of runs that failed and were not resumed. Return how many."""
    oldest = time.time() - days * 24 * 3600
    deleted = 0
    for folder in trainings.iterdir():
        with suppress(FileNotFoundError, RetryableError):
            if is_first_process() and folder.stat().st_mtime < oldest:
                with _hold_folder(folder):
                    shutil.rmtree(folder)
                    deleted += 1
    return deleted


@contextmanager
def _end_on_sigterm() -> Iterator[None]:
    if is_launched():
        # The launcher reports the signal. Its default action also ends a process that waits for another one in C code.
        yield
        return

    def end(*_: object) -> None:
        raise TerminatedError("SIGTERM stopped the training: run the same command to resume from the last checkpoint")

    previous = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _open_context(
    connections: Connections, snapshot_id: str, request: TrainingRequest, folder: Path, progress: Progress
) -> TrainingContext:
    settings = connections.settings
    device = choose_device(settings.compute.device, settings.compute.precision, int(os.environ.get("LOCAL_RANK", "0")))
    snapshot = load_snapshot(connections.store, connections.artifacts, snapshot_id)
    images = SnapshotImages(connections.store, connections.artifacts, progress)
    # Never resume from checkpoints that were trained with other settings.
    plan = json.dumps({"snapshot": snapshot_id, **_describe(request), "device": str(device.dtype)}, sort_keys=True)
    checkpoints = folder / f"checkpoints-{hashlib.sha256(plan.encode()).hexdigest()[:16]}"
    return TrainingContext(snapshot, images, device, checkpoints, progress)


def _describe(request: TrainingRequest) -> dict[str, Any]:
    return asdict(request) | {"kind": request.kind, "base": str(request.base)}


def _train(request: TrainingRequest, context: TrainingContext) -> TrainedModel:
    if isinstance(request, ClassifierTraining):
        return train_classifier(request, context)
    return train_encoder(request, context)


def _save(request: TrainingRequest, context: TrainingContext, trained: TrainedModel, folder: Path) -> dict[str, float]:
    """Write the checkpoint with its history, settings and reference outputs. Return its metrics."""
    if isinstance(request, ClassifierTraining):
        metrics = save_classifier(trained.model, request, context, folder)
    else:
        metrics = save_encoder(trained.model, request, context, folder)
    write_history(folder, trained.history)
    settings = _describe(request) | {"base": request.base.name}
    (folder / SETTINGS_FILE).write_text(json.dumps(settings, indent=1), encoding="utf-8")
    return trained.metrics | metrics


def _register(
    connections: Connections,
    run_id: str,
    request: TrainingRequest,
    context: TrainingContext,
    trained: TrainedModel,
    started: float,
) -> TrainingReport:
    """Store the checkpoint, then register it and its training in one transaction."""
    output = context.folder.parent / "candidate"
    shutil.rmtree(output, ignore_errors=True)
    metrics = _save(request, context, trained, output)
    snapshot_id = context.snapshot.snapshot_id
    context.progress.report("storing the checkpoint")
    uploaded = upload_checkpoint(
        connections.store, connections.artifacts, output, request.kind, data_snapshot=snapshot_id, metrics=metrics
    )
    with connections.engine.begin() as connection:
        version = insert_model_version(connection, uploaded)
        report = TrainingReport(
            request.kind,
            version.model_version_id,
            snapshot_id,
            version.weights_sha256,
            metrics,
            seconds=round(time.perf_counter() - started, 1),
            images_per_second=trained.images_per_second,
        )
        training = Training(
            run_id, request.kind, snapshot_id, version.model_version_id, _describe(request), asdict(report)
        )
        insert_training(connection, training)
    log.info("%s: registered as version %d", request.kind, report.model_version_id)
    return report
