"""``make demo``: the real flow on a rendered catalog or on the user's own photos, from an empty machine to answers."""

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demo.airflow_client import AirflowClient, DagRun
from demo.answers import DemoQuestions, choose_product, show_answers, show_next_steps
from demo.base_models import DemoBase, choose_bases, write_random_weights
from demo.follow_run import RunFollower, hold_preparation_lock
from demo.photos import (
    DemoPhotos,
    DemoRecord,
    describe_sample,
    find_own_photos,
    read_demo_record,
    reserve_stack,
    upload_photos,
    write_demo_record,
)
from demo.sample_catalog import SampleCatalogSpec, render_sample_catalog
from jobs.connections import Connections, connect
from jobs.database.migrations import migrate
from jobs.database.model_versions import MODEL_KINDS, ModelKind, read_champion
from jobs.errors import ConfigurationError, NotFoundError, RefusedError
from jobs.local.airflow_services import AirflowOptions, choose_task_slots
from jobs.local.ports import WantedPorts
from jobs.local.stack import StackStatus, start_stack
from jobs.settings import LOCAL_STACK_FOLDER, LOCATIONS, ImageSettings, load_settings, names_locations

INGEST_DAG = "catalog_ingest"
RETRAIN_DAG = "model_retrain"
TEXT_QUERY = "red striped dress"

Write = Callable[[str], None]


@dataclass(frozen=True)
class DemoFiles:
    """Where the demo keeps what it makes."""

    sample: Path = LOCAL_STACK_FOLDER / "sample"
    bases: Path = LOCAL_STACK_FOLDER / "bases"
    text_sheet: Path = LOCAL_STACK_FOLDER / "search.png"
    product_sheet: Path = LOCAL_STACK_FOLDER / "similar.png"


@dataclass(frozen=True)
class _Demo:
    """What the steps of a demo work with."""

    connections: Connections
    airflow: AirflowClient
    follower: RunFollower
    photos: DemoPhotos
    folder: Path
    files: DemoFiles
    write: Write


def run_demo(write: Write, ports: WantedPorts, own_photos: Path | None = None) -> None:
    """Run the demo on the local stack, on rendered photos unless a folder of ``own_photos`` is given.

    Raises:
        ConfigurationError: the environment names other places, the folder holds no photos, the stack holds those of
            another demo, or a run in Airflow failed; the message names the task and its log.
        RetryableError: a run in Airflow stands still.
    """
    files = DemoFiles()
    own = find_own_photos(own_photos, ImageSettings.model_fields["image_suffixes"].default) if own_photos else None
    if names_locations():
        raise ConfigurationError(f"the demo fills a bucket of its own: unset {', '.join(LOCATIONS)}, in .env too")
    LOCAL_STACK_FOLDER.mkdir(mode=0o700, exist_ok=True)
    reserve_stack(LOCAL_STACK_FOLDER, own_photos)
    status, photos = _start(files, own, ports, write)
    settings = load_settings()
    with connect(settings) as connections, _open_airflow(status) as airflow:
        follower = RunFollower(airflow, connections.engine, status.folder)
        with (
            hold_preparation_lock(status.folder),
            _step(write, f"putting {len(photos.files)} files into the bucket"),
        ):
            uploaded = upload_photos(connections, photos)
        demo = _Demo(connections, airflow, follower, photos, status.folder, files, write)
        _bring_champions(demo)
        _ingest(demo, attach=not uploaded)
        record = read_demo_record(status.folder)
        reads_texts = record is not None and record.reads_texts
        questions = DemoQuestions(
            TEXT_QUERY if reads_texts else None, choose_product(connections), files.text_sheet, files.product_sheet
        )
        show_answers(connections, questions, write)
        show_next_steps(questions, status, write)


@contextmanager
def _step(write: Write, title: str) -> Iterator[None]:
    write(f"-- {title} ...")
    started = time.monotonic()
    yield
    write(f"   done in {time.monotonic() - started:.1f} s")


def _open_airflow(status: StackStatus) -> AirflowClient:
    assert status.airflow_url is not None
    assert status.password is not None
    return AirflowClient(status.airflow_url, status.username, status.password)


def _start(
    files: DemoFiles, own: DemoPhotos | None, ports: WantedPorts, write: Write
) -> tuple[StackStatus, DemoPhotos]:
    """Start the stack and, at the same time, render the sample unless there are photos of the user's own."""
    title = "starting Postgres, S3 and Airflow" + ("" if own else ", and rendering a sample catalog")
    with hold_preparation_lock(LOCAL_STACK_FOLDER), _step(write, title), ThreadPoolExecutor(1) as pool:
        photos = pool.submit(lambda: own or _render_sample(files))
        status = start_stack(LOCAL_STACK_FOLDER, ports, AirflowOptions(pool_slots=choose_task_slots()))
        migrate(load_settings().locations.database_url)
        return status, photos.result()


def _render_sample(files: DemoFiles) -> DemoPhotos:
    """Render the photos, and write what the models start from."""
    photos = describe_sample(render_sample_catalog(files.sample, SampleCatalogSpec()))
    write_random_weights(photos, files.bases)
    return photos


def _bring_champions(demo: _Demo) -> None:
    """Train what can be trained, and adopt an encoder where there are no texts to train one on."""
    wanted = _list_wanted_kinds(demo.photos)
    if all(_has_champion(demo.connections, kind) for kind in wanted):
        demo.write("-- champions are there already")
        return
    with hold_preparation_lock(demo.folder):
        bases = choose_bases(demo.photos, demo.connections.settings, demo.files.bases)
    for kind in wanted:
        demo.write(f"   {kind}: {bases[kind].reason}")
    if demo.photos.labels:
        _retrain(demo, bases)
    if not _has_champion(demo.connections, "encoder"):
        _adopt_encoder(demo, bases["encoder"])


def _list_wanted_kinds(photos: DemoPhotos) -> list[ModelKind]:
    return list(MODEL_KINDS) if photos.labels else ["encoder"]


def _has_champion(connections: Connections, kind: ModelKind) -> bool:
    with connections.engine.connect() as connection:
        return read_champion(connection, kind) is not None


def _retrain(demo: _Demo, bases: Mapping[ModelKind, DemoBase]) -> None:
    """Run the retraining; photos of the user's own may be too few to pass, which ends no demo."""

    def prepare() -> Mapping[str, Any]:
        demo.write(f"   {_import_labels(demo)} photos to learn from")
        return {
            "kinds": "both" if demo.photos.is_sample else "classifier",
            "classifier_base": str(bases["classifier"].folder),
            "encoder_base": str(bases["encoder"].folder),
            "from_scratch": bases["classifier"].has_random_weights,
        }

    with _step(demo.write, f"running the DAG {RETRAIN_DAG} in Airflow"):
        try:
            run = demo.follower.run_dag(RETRAIN_DAG, prepare, demo.write)
        except RefusedError as error:
            if demo.photos.is_sample:
                raise
            demo.write(f"{error}\n   no classifier was promoted: the photos get vectors and no categories")
        else:
            _show_gates(demo, run)


def _import_labels(demo: _Demo) -> int:
    from jobs.retrain.labels.import_labels import import_labels

    assert demo.photos.labels is not None
    format_name, source = demo.photos.labels
    name = "sample" if demo.photos.is_sample else "own-photos"
    return import_labels(demo.connections, format_name, source, name=name).imported


def _show_gates(demo: _Demo, run: DagRun) -> None:
    for kind in MODEL_KINDS:
        # A run that leaves out a kind has no gates of it.
        with suppress(NotFoundError):
            report = demo.airflow.read_xcom(RETRAIN_DAG, run.run_id, f"{kind}.gate")
            demo.write(f"   gates of the {kind}:")
            for decision in report["decisions"]:
                demo.write(f"     {decision['verdict']:<8}{decision['sentence']}")


def _adopt_encoder(demo: _Demo, base: DemoBase) -> None:
    # Here, since torch takes seconds to import.
    from jobs.retrain.adopt import adopt_encoder
    from jobs.retrain.gates.gate_policy import load_gate_policy

    with _step(demo.write, "adopting an encoder as it is, since no photo has a text to train one on"):
        adopt_encoder(
            demo.connections,
            str(base.folder),
            "make demo",
            load_gate_policy(demo.connections.settings.training.gate_policy),
        )
    own_photos = str(demo.photos.folder)
    write_demo_record(demo.folder, DemoRecord(own_photos, reads_texts=not base.has_random_weights))


def _ingest(demo: _Demo, *, attach: bool) -> None:
    """Tag the bucket; without ``attach`` in a new run, as an active one may have listed it without the new files."""
    with _step(demo.write, f"running the DAG {INGEST_DAG} in Airflow"):
        try:
            run = demo.follower.run_dag(INGEST_DAG, dict, demo.write, attach=attach)
        except RefusedError as error:
            # Many bad files fail the run, and the other photos are tagged all the same.
            if demo.photos.is_sample or choose_product(demo.connections) is None:
                raise
            demo.write(f"{error}\n   the photos that could be read have their answers")
            return
        report = demo.airflow.read_xcom(INGEST_DAG, run.run_id, "report")
    if not report["entries"]:
        unchanged = report["discovered"]["unchanged"]
        demo.write(f"\nNothing new: all {unchanged} photos in the bucket are tagged or known to be bad.")
        return
    reasons = ", ".join(f"{reason} {count}" for reason, count in report["failure_reasons"].items())
    demo.write(
        f"\nRun {report['run_id']}: {report['entries']} photos = {report['tagged']} tagged + {report['reused']} reused "
        f"+ {report['failed']} failed{f' ({reasons})' if reasons else ''}, {report['images_per_second']} images/s"
    )
