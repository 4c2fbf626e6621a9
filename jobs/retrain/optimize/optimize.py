"""Stage 3 of the retrain flow: build the fastest version of a candidate that passes the fidelity gate."""

import logging
import shutil
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import openvino as ov

from jobs.connections import Connections
from jobs.database.evaluations import read_training
from jobs.database.model_versions import ModelKind, ModelVersion, insert_model_version, read_model_version
from jobs.errors import NotFoundError
from jobs.models.device import choose_device
from jobs.models.image_model import ModelBuild, Precision, write_build
from jobs.models.openvino_model import list_float_precisions
from jobs.models.registry import upload_checkpoint
from jobs.progress import open_progress
from jobs.retrain.evaluate.fidelity import Attempt, write_attempts
from jobs.retrain.evaluate.served_model import load_served_model
from jobs.retrain.gates.gate_policy import GatePolicy
from jobs.retrain.gates.serving_gates import describe_fidelity, find_losses
from jobs.retrain.optimize.context import OptimizationContext, open_context, prepare_comparison
from jobs.retrain.optimize.convert import convert_unless_torch, save_graph
from jobs.retrain.optimize.quantize import Int8Subset, list_blocks, list_int8_subsets, quantize, rank_blocks
from jobs.scratch import open_scratch

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class OptimizeReport:
    """The build of a candidate and every attempt, in order.

    ``int8_share`` and ``float_blocks`` are copied from the `ModelBuild`.
    """

    kind: ModelKind
    trained_version_id: int
    model_version_id: int
    engine: str
    precision: Precision
    int8_share: float | None
    float_blocks: tuple[str, ...]
    attempts: tuple[Attempt, ...]


def optimize_candidate(connections: Connections, run_id: str, kind: ModelKind, policy: GatePolicy) -> OptimizeReport:
    """Build and register the version of a run's candidate that will be served.

    Choose the fastest engine and precision whose predictions on the test images pass the fidelity gate. If int8 fails
    for the whole graph, search for the largest part of the graph that can be int8. The checkpoint in float32 passes by
    definition. A repeated call builds the same artifact.

    Raises:
        NotFoundError: the run has trained no model of this kind, or its snapshot has too few test images.
        RetryableError: the bucket or the database is unavailable.
    """
    with connections.engine.connect() as connection:
        training = read_training(connection, run_id, kind)
        if training is None:
            raise NotFoundError(f"run {run_id} has trained no {kind}: run `python -m jobs train {kind}` first")
        trained = read_model_version(connection, training.model_version_id)
    with (
        open_scratch() as scratch,
        open_progress(connections.engine, run_id, f"{kind}.optimize") as progress,
    ):
        context = open_context(connections, kind, trained, training.snapshot_id, progress)
        search = _BuildSearch(context, policy, scratch)
        best = search.run()
        build = best.build if best else context.build
        attempts = [tried.attempt for tried in search.tried]
        progress.report("storing the artifact")
        artifact = scratch / "artifact"
        shutil.copytree(context.checkpoint, artifact)
        if best:
            shutil.copytree(best.folder, artifact, dirs_exist_ok=True)
        write_build(artifact, build)
        write_attempts(artifact, attempts)
        version = _register(connections, trained, artifact, training.snapshot_id, attempts)
    log.info("%s %d is served by %s", kind, version.model_version_id, build.describe())
    return OptimizeReport(
        kind=kind,
        trained_version_id=trained.model_version_id,
        model_version_id=version.model_version_id,
        engine=build.engine,
        precision=build.precision,
        int8_share=build.int8_share,
        float_blocks=build.float_blocks,
        attempts=tuple(attempts),
    )


def _register(
    connections: Connections, trained: ModelVersion, artifact: Path, snapshot_id: str, attempts: Sequence[Attempt]
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


@dataclass(frozen=True)
class ServingOption:
    """A build to try. ``write`` writes its files into a folder that does not exist yet."""

    build: ModelBuild
    write: Callable[[Path], object]


@dataclass(frozen=True)
class _TriedOption:
    build: ModelBuild
    folder: Path
    attempt: Attempt

    @property
    def passes(self) -> bool:
        return not self.attempt.losses


class _BuildSearch:
    """Try serving options, fastest first, until one passes the fidelity gate."""

    def __init__(self, context: OptimizationContext, policy: GatePolicy, scratch: Path) -> None:
        self.tried: list[_TriedOption] = []
        self._context = context
        self._policy = policy
        self._scratch = scratch
        self._compare = prepare_comparison(context)

    def run(self) -> _TriedOption | None:
        """Return the fastest option that passes, or None if only the checkpoint in float32 does."""
        context = self._context
        context.progress.report("converting the checkpoint")
        graph = convert_unless_torch(context.checkpoint, context.kind, context.exact, context.compute.engine)
        if graph and context.compute.precision in {"auto", "int8"} and not self._try(make_int8_option(context, graph)):
            # Assumes that if an int8 subset passes, smaller subsets pass too.
            bisect_left(list_partial_int8_options(context, graph), True, key=self._try)
        if not any(tried.passes for tried in self.tried):
            for option in list_graph_options(context, graph) if graph else list_torch_options(context):
                if self._try(option):
                    break
        passing = [tried for tried in self.tried if tried.passes]
        # More than one option can pass only among int8 subsets.
        return max(passing, key=lambda tried: tried.build.int8_share or 0, default=None)

    def _try(self, option: ServingOption) -> bool:
        """Build an option and compare it with float32. Return whether it passes the fidelity gate."""
        kind, build, folder = self._context.kind, option.build, self._scratch / f"option-{len(self.tried)}"
        self._context.progress.report(f"build {len(self.tried) + 1}: {build.describe()}")
        option.write(folder)
        write_build(folder, build)
        fidelity = self._compare(load_served_model(folder, kind, self._context.exact))
        losses = tuple(find_losses(fidelity, self._policy))
        result = f"rejected: {'; '.join(losses)}" if losses else describe_fidelity(fidelity)
        log.info("%s by %s: %s", kind, build.describe(), result)
        attempt = Attempt(build.engine, build.precision, fidelity, losses, build.int8_share, build.float_blocks)
        self.tried.append(_TriedOption(build, folder, attempt))
        return not losses


def make_int8_option(context: OptimizationContext, graph: ov.Model) -> ServingOption:
    """Quantize everything that NNCF can quantize. The rest stays in float32."""
    build = replace(context.build, engine="openvino", precision="int8", rest_precision="fp32")

    def write(folder: Path) -> None:
        save_graph(quantize(graph, context.load_calibration(), progress=context.progress), folder)

    return ServingOption(build, write)


def list_partial_int8_options(context: OptimizationContext, graph: ov.Model) -> tuple[ServingOption, ...]:
    """List int8 builds. Each keeps one more of the most sensitive blocks in the fastest float precision."""
    rest = list_float_precisions()[0]
    calibration = context.load_calibration()
    blocks = list_blocks(graph)
    int8 = replace(context.build, engine="openvino", precision="int8", rest_precision=rest)

    def make_option(subset: Int8Subset) -> ServingOption:
        build = replace(int8, int8_share=subset.int8_share, float_blocks=subset.float_blocks)

        def write(folder: Path) -> None:
            save_graph(quantize(graph, calibration, subset.float_operations, progress=context.progress), folder)

        return ServingOption(build, write)

    ranked = rank_blocks(graph, blocks, calibration, rest, context.progress)
    return tuple(make_option(subset) for subset in list_int8_subsets(blocks, ranked))


def list_graph_options(context: OptimizationContext, graph: ov.Model) -> Iterator[ServingOption]:
    """List the graph in the float precisions of this processor, fastest first."""
    for name in ("fp32",) if context.compute.precision == "fp32" else list_float_precisions():
        build = replace(context.build, engine="openvino", precision=name, rest_precision=name)
        yield ServingOption(build, lambda folder: save_graph(graph, folder))


def list_torch_options(context: OptimizationContext) -> Iterator[ServingOption]:
    """List the checkpoint in the precision from the settings or of the device, unless that is float32."""
    native = choose_device(context.compute.device, context.compute.precision).precision
    if native != "fp32":
        build = replace(context.build, precision=native, rest_precision=native)
        yield ServingOption(build, lambda folder: shutil.copytree(context.checkpoint, folder))
