"""Stage 3 of retraining: build what serves a candidate, as fast as its answers allow."""

import logging
import shutil
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from jobs.connections import Connections
from jobs.database.evaluations import read_training
from jobs.database.model_versions import ModelKind, ModelVersion, insert_model_version, read_model_version
from jobs.errors import PermanentError
from jobs.models.image_model import ModelBuild, Precision, write_build
from jobs.models.registry import upload_checkpoint
from jobs.progress import open_progress
from jobs.retrain.evaluate.evaluation_record import Fidelity
from jobs.retrain.evaluate.fidelity import Attempt, write_attempts
from jobs.retrain.evaluate.served_model import ServedModel, load_served_model
from jobs.retrain.gates.gate_policy import GatePolicy
from jobs.retrain.gates.serving_gates import describe_fidelity, find_losses
from jobs.retrain.optimize.builds import (
    ServingOption,
    convert,
    list_float_ways,
    list_mixed_ways,
    list_torch_ways,
    quantize_whole,
)
from jobs.retrain.optimize.context import OptimizationContext, open_context, prepare_comparison
from jobs.scratch import open_scratch
from jobs.settings import Settings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class OptimizeReport:
    """The production artifact of a candidate, and all that was tried for it, in that order.

    ``int8_share`` and ``float_blocks`` are those of its `ModelBuild`.
    """

    kind: ModelKind
    trained_version_id: int
    model_version_id: int
    engine: str
    precision: Precision
    int8_share: float | None
    float_blocks: tuple[str, ...]
    attempts: tuple[Attempt, ...]


@dataclass(frozen=True)
class _Tried:
    """What was built in a folder, and what it costs."""

    production: ModelBuild
    folder: Path
    attempt: Attempt

    @property
    def passes(self) -> bool:
        return not self.attempt.losses


def optimize_candidate(connections: Connections, run_id: str, kind: ModelKind, policy: GatePolicy) -> OptimizeReport:
    """Build and register the production artifact of what a run has trained.

    The fastest engine and precision whose answers on the test images pass the fidelity gate are taken, and between
    int8 and floats the largest part that may be in int8; the checkpoint itself in float32 passes by definition. Asked
    again, it builds the same artifact.

    Raises:
        PermanentError: the run has trained nothing of this kind, or its snapshot has no test images.
        RetryableError: bucket or database away.
    """
    with connections.engine.connect() as connection:
        training = read_training(connection, run_id, kind)
        if training is None:
            raise PermanentError(f"run {run_id} has trained no {kind}: run `python -m jobs train {kind}` first")
        trained = read_model_version(connection, training.model_version_id)
    with (
        open_scratch() as scratch,
        open_progress(connections.engine, run_id, f"{kind}.optimize") as progress,
    ):
        context = open_context(connections, kind, trained, training.snapshot_id, progress)
        tried = _try_ways(context, connections.settings, policy, scratch)
        # More than one passes only of those that are partly in int8.
        passing = sorted((one for one in tried if one.passes), key=lambda one: one.production.int8_share or 0)
        chosen = passing[-1].production if passing else context.production
        attempts = [one.attempt for one in tried]
        artifact = scratch / "artifact"
        progress.report("storing the artifact")
        _assemble(context, passing[-1].folder if passing else None, attempts, artifact)
        version = _register(connections, trained, artifact, training.snapshot_id, attempts)
    log.info("%s %d is served by %s", kind, version.model_version_id, chosen.describe())
    return OptimizeReport(
        kind=kind,
        trained_version_id=trained.model_version_id,
        model_version_id=version.model_version_id,
        engine=chosen.engine,
        precision=chosen.precision,
        int8_share=chosen.int8_share,
        float_blocks=chosen.float_blocks,
        attempts=tuple(attempts),
    )


def _try_ways(context: OptimizationContext, settings: Settings, policy: GatePolicy, scratch: Path) -> list[_Tried]:
    """Try one way after the other until one passes, and where int8 does not, the largest part of it that does."""
    compare = prepare_comparison(context)
    tried: list[_Tried] = []

    def passes(way: ServingOption) -> bool:
        context.progress.report(f"build {len(tried) + 1}: {way.production.describe()}")
        tried.append(_try_way(context, way, compare, policy, scratch / f"way-{len(tried)}"))
        return tried[-1].passes

    context.progress.report("converting the checkpoint")
    graph = convert(context.checkpoint, context.kind, context.exact, settings)
    if graph and settings.compute.precision in {"auto", "int8"} and not passes(quantize_whole(context, graph)):
        # What follows a part that passes has less in int8, and is taken to pass, too.
        bisect_left(list_mixed_ways(context, graph), True, key=passes)
    if any(one.passes for one in tried):
        return tried
    for way in list_float_ways(context, settings, graph) if graph else list_torch_ways(context, settings):
        if passes(way):
            break
    return tried


def _try_way(
    context: OptimizationContext,
    way: ServingOption,
    compare: Callable[[ServedModel], Fidelity],
    policy: GatePolicy,
    folder: Path,
) -> _Tried:
    production = way.production
    way.build(folder)
    write_build(folder, production)
    fidelity = compare(load_served_model(folder, context.kind, context.exact))
    losses = tuple(find_losses(fidelity, policy))
    found = f"not taken: {'; '.join(losses)}" if losses else describe_fidelity(fidelity)
    log.info("%s by %s: %s", context.kind, production.describe(), found)
    attempt = Attempt(
        production.engine, production.precision, fidelity, losses, production.int8_share, production.float_blocks
    )
    return _Tried(production, folder, attempt)


def _assemble(context: OptimizationContext, built: Path | None, attempts: list[Attempt], artifact: Path) -> None:
    """The checkpoint, with its text tower and its references, and beside it what serves it."""
    shutil.copytree(context.checkpoint, artifact)
    if built is None:
        write_build(artifact, context.production)
    else:
        shutil.copytree(built, artifact, dirs_exist_ok=True)
    write_attempts(artifact, attempts)


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
