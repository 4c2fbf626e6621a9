"""Commands of the retrain flow, one for each task of ``model_retrain`` and one for all of them."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from jobs.commands.options import Kind, KindArgument, RunOption, give_examples
from jobs.commands.terminal import print_report
from jobs.connections import Connections, connect
from jobs.models.checkpoint import resolve_base
from jobs.retrain.gates.gate_policy import GatePolicy, load_gate_policy
from jobs.retrain.gates.gates import decide_gates
from jobs.retrain.labels.import_labels import import_labels as import_all
from jobs.retrain.promote import carry_out_decision, promote_candidate
from jobs.retrain.snapshot.snapshot import SnapshotSettings, take_snapshot
from jobs.retrain.train.requests import Freeze, TrainingOptions, TrainingRequest, make_request
from jobs.settings import Settings, load_settings

app = typer.Typer()

EpochsOption = Annotated[int | None, typer.Option(min=0, help="Passes over the data. 0 keeps an encoder as it is.")]
BudgetOption = Annotated[
    float | None,
    typer.Option(min=0, help="Train as many epochs as fit into this time. Default on a CPU: 60, without --epochs."),
]
RateOption = Annotated[float | None, typer.Option(min=0, help="The highest learning rate.")]
BatchOption = Annotated[int | None, typer.Option(min=2, help="Images in a step.")]
SeedOption = Annotated[int | None, typer.Option(help="Seed of all random choices.")]
FreezeOption = Annotated[
    Freeze | None, typer.Option(help="Layers whose weights stay fixed: all except the head, the early ones, or none.")
]
MiningOption = Annotated[
    bool, typer.Option("--mine-hard-negatives", help="Fill an encoder's batches with images that are easily confused.")
]
ScratchOption = Annotated[bool, typer.Option("--from-scratch", help="Use large steps, for bases with random weights.")]
ProcessesOption = Annotated[
    int | None, typer.Option(min=1, help="Processes that train together. Default: one per GPU of this machine.")
]
PromoterOption = Annotated[str, typer.Option("--by", help="Name to record in catalog.promotions.")]


@app.command(
    epilog=give_examples(
        "catalog import-labels csv labels.csv", "catalog import-labels folders images/ --name summer --prune"
    )
)
def import_labels(
    format_name: Annotated[
        str,
        typer.Argument(metavar="FORMAT", help="folders, csv, fashion-products, deepfashion or deepfashion-in-shop."),
    ],
    source: Annotated[Path, typer.Argument(exists=True, help="File or folder with the labels.")],
    name: Annotated[str | None, typer.Option(help="Name of the source, by default that of the folder.")] = None,
    prune: Annotated[bool, typer.Option("--prune", help="Delete labels that the source no longer contains.")] = False,
) -> None:
    """Import labels to train on. Invalid rows are skipped and listed in a report."""
    with connect(load_settings()) as connections:
        print_report(import_all(connections, format_name, source, name, prune))


@app.command(epilog=give_examples("catalog build 4", "catalog build 4 --again"))
def build(
    version: Annotated[int, typer.Argument(help="Number of the version in `models list`.")],
    again: Annotated[bool, typer.Option("--again", help="Replace the builds, for example if files were lost.")] = False,
) -> None:
    """Make the builds of a version for this machine if it has none. Workers do it when they need one."""
    from jobs.retrain.optimize.optimize import make_missing_build

    with connect(load_settings()) as connections:
        report = make_missing_build(connections, version, _load_policy(connections), again=again)
        print_report(report or {"made": False})


@app.command(epilog=give_examples("catalog snapshot"))
def snapshot() -> None:
    """Freeze all labels into a dataset: drop duplicates and split it by group."""
    settings = load_settings()
    with connect(settings) as connections:
        print_report(take_snapshot(connections, SnapshotSettings.from_settings(settings)))


@app.command(
    epilog=give_examples(
        "catalog train classifier --run week-1 --snapshot 3f9a",
        "catalog train encoder --run week-1 --snapshot 3f9a --epochs 3 --freeze early",
    )
)
def train(
    kind: KindArgument,
    run: RunOption,
    snapshot: Annotated[str, typer.Option(help="Dataset to train on.")],
    base: Annotated[str | None, typer.Option(help="Directory or hub id instead of the configured base.")] = None,
    epochs: EpochsOption = None,
    budget_minutes: BudgetOption = None,
    learning_rate: RateOption = None,
    batch_size: BatchOption = None,
    seed: SeedOption = None,
    freeze: FreezeOption = None,
    mine_hard_negatives: MiningOption = False,
    from_scratch: ScratchOption = False,
    processes: ProcessesOption = None,
) -> None:
    """Train a candidate. A repeated call resumes from the last checkpoint."""
    from jobs.retrain.train.launch import run_as_launched
    from jobs.retrain.train.train import train_candidate

    options = TrainingOptions(
        epochs=epochs,
        budget_minutes=budget_minutes,
        learning_rate=learning_rate,
        batch_size=batch_size,
        seed=seed,
        freeze=freeze,
        mine_hard_negatives=mine_hard_negatives,
        from_scratch=from_scratch,
    )
    settings = load_settings()
    request = _make_request(settings, kind, base, "--base", options)
    _train_on_all_gpus(settings, run, snapshot, request, options, processes)
    with run_as_launched(), connect(settings) as connections:
        print_report(train_candidate(connections, run, snapshot, request))


@app.command(epilog=give_examples("catalog optimize classifier --run week-1"))
def optimize(kind: KindArgument, run: RunOption) -> None:
    """Search for the fastest build of a candidate that passes the fidelity gate."""
    from jobs.retrain.optimize.optimize import optimize_candidate

    with connect(load_settings()) as connections:
        print_report(optimize_candidate(connections, run, kind, _load_policy(connections)))


@app.command(epilog=give_examples("catalog evaluate classifier --run week-1"))
def evaluate(kind: KindArgument, run: RunOption) -> None:
    """Score candidate and champion on the same test images, and benchmark the artifact."""
    from jobs.retrain.evaluate.evaluate import evaluate_candidate

    with connect(load_settings()) as connections:
        print_report(evaluate_candidate(connections, run, kind))


@app.command(epilog=give_examples("catalog gate classifier --run week-1"))
def gate(kind: KindArgument, run: RunOption) -> None:
    """Decide whether a candidate may be promoted, and write its evaluation page."""
    with connect(load_settings()) as connections:
        print_report(decide_gates(connections, run, kind, _load_policy(connections)))


@app.command(epilog=give_examples("catalog promote classifier --run week-1 --by anna"))
def promote(kind: KindArgument, run: RunOption, by: PromoterOption = "model_retrain") -> None:
    """Make a candidate that passed its gates the champion, if the champion is unchanged."""
    with connect(load_settings()) as connections:
        print_report(promote_candidate(connections, run, kind, by))


@app.command(epilog=give_examples("catalog decide 12"))
def decide(
    decision: Annotated[int, typer.Argument(help="Number of the decision in catalog.champion_decisions.")],
) -> None:
    """Carry out, once, a promotion or rollback that was confirmed on the page Models."""
    with connect(load_settings()) as connections:
        print_report(carry_out_decision(connections, decision))


@app.command(epilog=give_examples("catalog adopt encoder", "catalog adopt encoder openai/clip-vit-base-patch32"))
def adopt(
    kind: Annotated[Literal["encoder"], typer.Argument(help="encoder.")],
    base: Annotated[str | None, typer.Argument(help="Directory or hub id instead of CATALOG_ENCODER_BASE.")] = None,
    by: PromoterOption = "adopt",
) -> None:
    """Make a base encoder the first champion, to search before there are labels."""
    from jobs.retrain.adopt import adopt_encoder

    with connect(load_settings()) as connections:
        print_report(adopt_encoder(connections, base, by, _load_policy(connections)))


@app.command(
    epilog=give_examples(
        "catalog retrain",
        "catalog retrain --kinds classifier --budget-minutes 30",
        "catalog retrain --run retrain-20260131T020000.000000Z",
    )
)
def retrain(
    kinds: Annotated[Literal["both", "classifier", "encoder"], typer.Option(help="What to train.")] = "both",
    run: Annotated[str | None, typer.Option(help="Resume this unfinished run.")] = None,
    classifier_base: Annotated[str | None, typer.Option(help="Directory or hub id.")] = None,
    encoder_base: Annotated[str | None, typer.Option(help="Directory or hub id.")] = None,
    classifier_epochs: EpochsOption = None,
    encoder_epochs: EpochsOption = None,
    budget_minutes: BudgetOption = None,
    classifier_learning_rate: RateOption = None,
    encoder_learning_rate: RateOption = None,
    classifier_freeze: FreezeOption = None,
    encoder_freeze: FreezeOption = None,
    mine_hard_negatives: MiningOption = False,
    from_scratch: ScratchOption = False,
    seed: SeedOption = None,
    processes: ProcessesOption = None,
    by: PromoterOption = "retrain",
) -> None:
    """Train, evaluate, promote and retag: the whole weekly flow without Airflow."""
    from jobs.retrain.retrain import RetrainOptions
    from jobs.retrain.retrain import retrain as retrain_models
    from jobs.retrain.train.train import train_candidate

    bases: dict[Kind, str | None] = {"classifier": classifier_base, "encoder": encoder_base}
    options: dict[Kind, TrainingOptions] = {
        "classifier": TrainingOptions(
            epochs=classifier_epochs,
            budget_minutes=budget_minutes,
            learning_rate=classifier_learning_rate,
            seed=seed,
            freeze=classifier_freeze,
            from_scratch=from_scratch,
        ),
        "encoder": TrainingOptions(
            epochs=encoder_epochs,
            budget_minutes=budget_minutes,
            learning_rate=encoder_learning_rate,
            seed=seed,
            freeze=encoder_freeze,
            mine_hard_negatives=mine_hard_negatives,
            from_scratch=from_scratch,
        ),
    }
    settings = load_settings()

    def make(kind: Kind) -> TrainingRequest:
        return _make_request(settings, kind, bases[kind], f"--{kind}-base", options[kind])

    with connect(settings) as connections:

        def train_kind(run_id: str, snapshot_id: str, request: TrainingRequest) -> None:
            _train_on_all_gpus(settings, run_id, snapshot_id, request, options[request.kind], processes)
            train_candidate(connections, run_id, snapshot_id, request)

        policy = _load_policy(connections)
        print_report(retrain_models(connections, RetrainOptions(kinds, run, by), make, train_kind, policy))


def _load_policy(connections: Connections) -> GatePolicy:
    return load_gate_policy(connections.settings.training.gate_policy)


def _make_request(
    settings: Settings, kind: Kind, base: str | None, base_option: str, options: TrainingOptions
) -> TrainingRequest:
    from jobs.models.device import choose_device

    configured = settings.training.classifier_base if kind == "classifier" else settings.training.encoder_base
    origin = base_option if base else f"CATALOG_{kind.upper()}_BASE"
    folder = resolve_base(base or configured, origin, settings.locations.model_cache)
    device = choose_device(settings.compute.device, settings.compute.precision)
    return make_request(kind, folder, options, device.is_cuda)


def _train_on_all_gpus(
    settings: Settings,
    run: str,
    snapshot: str,
    request: TrainingRequest,
    options: TrainingOptions,
    processes: int | None,
) -> None:
    """Run the command ``train`` once per GPU, with options that make the same request. Do nothing for a single GPU."""
    from jobs.models.device import choose_device
    from jobs.retrain.train.launch import train_together

    given = {"run": run, "snapshot": snapshot, "base": request.base, **asdict(options)}
    words = [
        f"--{name.replace('_', '-')}" if value is True else f"--{name.replace('_', '-')}={value}"
        for name, value in given.items()
        if value is not None and value is not False
    ]
    device = choose_device(settings.compute.device, settings.compute.precision)
    train_together(["train", request.kind, *words], request, device, processes)
