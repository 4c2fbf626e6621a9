"""Stage 3 of the retrain flow: make the builds of a version, and admit those that are faithful to float32."""

import logging
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from sqlalchemy import Engine

from jobs.connections import Connections
from jobs.cores import describe_processor
from jobs.database.evaluations import name_trained_runs, read_training
from jobs.database.model_builds import EngineName, NewBuild, Precision, insert_builds, list_builds, lock_builds
from jobs.database.model_versions import (
    ModelKind,
    ModelVersion,
    read_model_version,
    require_model_version,
    store_text_uri,
)
from jobs.errors import NotFoundError
from jobs.models.builds import choose_builds, find_build, find_device_class
from jobs.models.device import Device
from jobs.models.image_model import ModelBuild
from jobs.models.registry import upload_build
from jobs.progress import Progress, open_progress
from jobs.retrain.evaluate.evaluation_record import Fidelity
from jobs.retrain.evaluate.served_model import load_served_model
from jobs.retrain.gates.gate_policy import GatePolicy
from jobs.retrain.gates.serving_gates import describe_fidelity, find_losses
from jobs.retrain.optimize.context import OptimizationContext, open_context, prepare_comparison
from jobs.retrain.optimize.export_text import export_text
from jobs.retrain.optimize.options import ServingOption, ServingOptions, open_options
from jobs.scratch import open_scratch

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TriedBuild:
    """A build, and the criteria of the fidelity gate that it failed. ``fidelity`` is None if it was not compared."""

    build: ModelBuild
    folder: Path
    fidelity: Fidelity | None
    losses: tuple[str, ...]


@dataclass(frozen=True)
class Attempt:
    """A build that was tried, as reported. An admitted one has no ``losses``.

    ``int8_share`` and ``float_blocks`` are copied from its `ModelBuild`.
    """

    engine: EngineName
    precision: Precision
    fidelity: Fidelity | None
    losses: tuple[str, ...]
    int8_share: float | None
    float_blocks: tuple[str, ...]


@dataclass(frozen=True)
class OptimizeReport:
    """The build of a version that this machine serves, and all that were tried, in order."""

    kind: ModelKind
    model_version_id: int
    engine: EngineName
    precision: Precision
    attempts: tuple[Attempt, ...]


def optimize_candidate(connections: Connections, run_id: str, kind: ModelKind, policy: GatePolicy) -> OptimizeReport:
    """Make the builds of a run's candidate for this machine, and register them.

    Builds are tried fastest first, until the predictions of one on the test images pass the fidelity gate. If none
    does, the checkpoint in float32 is served, which is exact by definition. A repeated call makes them again.

    Raises:
        NotFoundError: the run has trained no model of this kind.
        RefusedError: the snapshot has too few test images.
        RetryableError: the bucket or the database is unavailable.
    """
    with connections.engine.connect() as connection:
        training = read_training(connection, run_id, kind)
        if training is None:
            raise NotFoundError(
                f"run {run_id!r} has no trained {kind}: run `catalog train {kind} --run {run_id}` first. "
                f"{name_trained_runs(connection, run_id, kind)}"
            )
        version = read_model_version(connection, training.model_version_id)
    with open_progress(connections.engine, run_id, f"{kind}.optimize") as progress:
        return make_builds(connections, version, policy, progress)


def make_missing_build(
    connections: Connections, model_version_id: int, policy: GatePolicy, *, again: bool = False
) -> OptimizeReport | None:
    """Make the builds of a version for this machine, unless it has one. Only one process makes them at a time.

    With ``again``, replace those that it has, for example because their files were lost.

    Raises:
        NotFoundError: the version does not exist.
        RetryableError: another process has been making them for too long, or the bucket is unavailable.
    """
    with connections.engine.connect() as connection:
        version = require_model_version(connection, model_version_id)
    with (
        _lock_builds(connections.engine, model_version_id),
        open_progress(connections.engine, f"build-{model_version_id}", "build") as progress,
    ):
        if not again and find_build(connections, model_version_id):
            return None
        return make_builds(connections, version, policy, progress)


@contextmanager
def _lock_builds(engine: Engine, model_version_id: int) -> Iterator[None]:
    with engine.connect() as connection:
        # Detach from the pool, so closing the connection always releases the lock.
        connection.detach()
        lock_builds(connection, model_version_id)
        connection.commit()
        yield


def make_builds(
    connections: Connections, version: ModelVersion, policy: GatePolicy, progress: Progress
) -> OptimizeReport:
    """Make and register the builds of a version. Without a snapshot to compare on, make the one in float32."""
    with open_scratch() as scratch:
        progress.report("reading the checkpoint")
        context = open_context(connections, version, progress)
        progress.report("converting the checkpoint")
        options = open_options(context.checkpoint, context.build, context.compute, progress)
        tried = _try_builds(context, options, policy, scratch) if context.snapshot else []
        admitted = [one for one in tried if not one.losses]
        if not admitted:
            option = options.keep_checkpoint() if tried else list(options.list_floats())[-1]
            admitted = [_make_exact(option, scratch / "exact")]
            tried += admitted
        # More than one build can pass only among int8 subsets.
        served = max(admitted, key=lambda one: one.build.int8_share or 0)
        progress.report("storing the builds")
        # Builds of the same engine and precision are one record, which the served one takes.
        records = {(one.build.engine, one.build.precision): one for one in (*reversed(tried), served)}
        builds = [_store(connections, version, context.exact, one) for one in records.values()]
        text_uri = store_text(connections, version.kind, context.checkpoint, scratch / "text")
    choice = choose_builds(connections.settings.compute)
    with connections.engine.begin() as connection:
        known = list_builds(connection, version.model_version_id)
        if not any(map(choice.matches, known)) and not any(map(choice.matches, builds)):
            # Otherwise each process that asks for it would have it made again.
            missing = replace(
                describe_build(version.model_version_id, served.build, context.exact, None),
                engine=choice.engine or served.build.engine,
                precision=choice.precision or served.build.precision,
                losses=("this machine cannot make it",),
            )
            builds.append(missing)
        insert_builds(connection, builds)
        if text_uri:
            store_text_uri(connection, version.model_version_id, text_uri)
    log.info("%s %d is served by %s", version.kind, version.model_version_id, served.build.describe())
    return OptimizeReport(
        kind=version.kind,
        model_version_id=version.model_version_id,
        engine=served.build.engine,
        precision=served.build.precision,
        attempts=tuple(
            Attempt(
                one.build.engine,
                one.build.precision,
                one.fidelity,
                one.losses,
                one.build.int8_share,
                one.build.float_blocks,
            )
            for one in tried
        ),
    )


def _try_builds(
    context: OptimizationContext, options: ServingOptions, policy: GatePolicy, scratch: Path
) -> list[TriedBuild]:
    """Make builds, fastest first, until one passes the fidelity gate. Return all of them."""
    compare = prepare_comparison(context)
    tried: list[TriedBuild] = []

    def try_option(option: ServingOption) -> bool:
        folder = scratch / f"build-{len(tried) + 1}"
        context.progress.report(f"build {len(tried) + 1}: {option.build.describe()}")
        option.make(folder)
        fidelity = compare(load_served_model(folder, context.kind, context.exact))
        losses = tuple(find_losses(fidelity, policy))
        result = f"rejected: {'; '.join(losses)}" if losses else describe_fidelity(fidelity)
        log.info("%s by %s: %s", context.kind, option.build.describe(), result)
        tried.append(TriedBuild(option.build, folder, fidelity, losses))
        return not losses

    if options.allow_int8:
        calibration = context.load_calibration()
        if not try_option(options.quantize_all(calibration)):
            # Assumes that if an int8 subset passes, smaller subsets pass too.
            bisect_left(options.quantize_parts(calibration), True, key=try_option)
    if all(one.losses for one in tried):
        # Stops at the first that passes.
        any(try_option(option) for option in options.list_floats())
    return tried


def _make_exact(option: ServingOption, folder: Path) -> TriedBuild:
    """Make a build in float32 that is not compared."""
    option.make(folder)
    return TriedBuild(option.build, folder, None, ())


def store_text(connections: Connections, kind: ModelKind, checkpoint: Path, folder: Path) -> str | None:
    """Export and upload the text tower of an encoder. Return None if there is none, or it cannot be exported."""
    if kind == "classifier" or not export_text(checkpoint, folder):
        return None
    return str(upload_build(connections.store, connections.artifacts, folder))


def _store(connections: Connections, version: ModelVersion, device: Device, tried: TriedBuild) -> NewBuild:
    """Upload an admitted build, and return the record to register."""
    location = None if tried.losses else upload_build(connections.store, connections.artifacts, tried.folder)
    return replace(
        describe_build(version.model_version_id, tried.build, device, str(location) if location else None),
        fidelity=asdict(tried.fidelity) if tried.fidelity else None,
        losses=tried.losses,
    )


def describe_build(model_version_id: int, build: ModelBuild, device: Device, artifact_uri: str | None) -> NewBuild:
    """Return the record of a build that was made on this machine and not compared with float32."""
    return NewBuild(
        model_version_id=model_version_id,
        device_class=find_device_class(device.torch_device.type),
        engine=build.engine,
        precision=build.precision,
        artifact_uri=artifact_uri,
        fidelity=None,
        losses=(),
        machine=device.describe() if device.is_cuda else describe_processor(),
    )
