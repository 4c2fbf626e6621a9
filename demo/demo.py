"""Run ``make demo``: the whole flow on a rendered catalog or the user's own images, from a fresh clone to searches."""

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demo.airflow_client import AirflowClient, DagRun
from demo.follow_run import RunFollower, hold_preparation_lock
from demo.inputs import (
    DemoBase,
    DemoImages,
    DemoRecord,
    choose_bases,
    describe_sample,
    find_own_images,
    read_demo_record,
    reserve_stack,
    upload_images,
    write_demo_record,
    write_random_weights,
)
from demo.sample_catalog import SampleCatalogSpec, render_sample_catalog
from jobs.commands.search import show_similar_products, show_text_search
from jobs.commands.terminal import choose_json
from jobs.connections import Connections, connect
from jobs.database.migrations import migrate
from jobs.database.model_versions import MODEL_KINDS, ModelKind, read_champion
from jobs.database.products import choose_example_product
from jobs.errors import ConfigurationError, NotFoundError, RefusedError
from jobs.ingest.discover import IMAGE_SUFFIXES
from jobs.local.airflow_services import AirflowOptions, choose_task_slots
from jobs.local.ports import WantedPorts
from jobs.local.stack import StackStatus, start_stack
from jobs.settings import LOCAL_STACK_FOLDER, LOCATIONS, load_settings, names_locations

INGEST_DAG = "catalog_ingest"
RETRAIN_DAG = "model_retrain"
TEXT_QUERY = "red striped dress"
COUNT_CATEGORIES = "SELECT category, count(*) FROM catalog.current_image_tags GROUP BY category ORDER BY 2 DESC"

Write = Callable[[str], None]


@dataclass(frozen=True)
class DemoFiles:
    """Files that the demo writes."""

    sample: Path = LOCAL_STACK_FOLDER / "sample"
    bases: Path = LOCAL_STACK_FOLDER / "bases"
    text_sheet: Path = LOCAL_STACK_FOLDER / "search.png"
    product_sheet: Path = LOCAL_STACK_FOLDER / "similar.png"


@dataclass(frozen=True)
class _Demo:
    """Objects that all steps of the demo use."""

    connections: Connections
    airflow: AirflowClient
    follower: RunFollower
    images: DemoImages
    folder: Path
    files: DemoFiles
    write: Write


def run_demo(write: Write, ports: WantedPorts, own_images: Path | None = None) -> None:
    """Run the demo on the local stack, with rendered images or those in the folder ``own_images``.

    Raises:
        ConfigurationError: the environment sets another database or bucket, the folder contains no images, or the
            stack contains the images of another demo.
        RefusedError: a run in Airflow failed; the message names the task and its log.
        RetryableError: a run in Airflow is stalled.
    """
    files = DemoFiles()
    own = find_own_images(own_images, IMAGE_SUFFIXES) if own_images else None
    if names_locations():
        raise ConfigurationError(
            f"the demo uses its own database and bucket: unset {', '.join(LOCATIONS)}, also in .env"
        )
    LOCAL_STACK_FOLDER.mkdir(mode=0o700, exist_ok=True)
    reserve_stack(LOCAL_STACK_FOLDER, own_images)
    status, images = _start(files, own, ports, write)
    settings = load_settings()
    with connect(settings) as connections, _open_airflow(status) as airflow:
        follower = RunFollower(airflow, connections.engine, status.folder)
        with (
            hold_preparation_lock(status.folder),
            _step(write, f"uploading {len(images.files)} files to the bucket"),
        ):
            uploaded = upload_images(connections, images)
        demo = _Demo(connections, airflow, follower, images, status.folder, files, write)
        _ensure_champions(demo)
        _ingest(demo, attach=not uploaded)
        _show_results(demo, status)


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
    files: DemoFiles, own: DemoImages | None, ports: WantedPorts, write: Write
) -> tuple[StackStatus, DemoImages]:
    """Start the stack. Meanwhile, render the sample, unless the user has provided images."""
    title = "starting Postgres, S3 and Airflow" + ("" if own else ", and rendering a sample catalog")
    with hold_preparation_lock(LOCAL_STACK_FOLDER), _step(write, title), ThreadPoolExecutor(1) as pool:
        images = pool.submit(lambda: own or _render_sample(files))
        status = start_stack(LOCAL_STACK_FOLDER, ports, AirflowOptions(pool_slots=choose_task_slots()))
        migrate(load_settings().locations.database_url)
        return status, images.result()


def _render_sample(files: DemoFiles) -> DemoImages:
    """Render the images, and write the checkpoints that the models start from."""
    images = describe_sample(render_sample_catalog(files.sample, SampleCatalogSpec()))
    write_random_weights(images, files.bases)
    return images


def _ensure_champions(demo: _Demo) -> None:
    """Train models if there are labels. Adopt an encoder if there are no texts to train one on."""
    wanted: list[ModelKind] = list(MODEL_KINDS) if demo.images.labels else ["encoder"]
    if all(_has_champion(demo.connections, kind) for kind in wanted):
        demo.write("-- using the champions of the last run")
        return
    with hold_preparation_lock(demo.folder):
        bases = choose_bases(demo.images, demo.connections.settings, demo.files.bases)
    for kind in wanted:
        demo.write(f"   {kind}: {bases[kind].reason}")
    if demo.images.labels:
        _retrain(demo, bases)
    if not _has_champion(demo.connections, "encoder"):
        _adopt_encoder(demo, bases["encoder"])


def _has_champion(connections: Connections, kind: ModelKind) -> bool:
    with connections.engine.connect() as connection:
        return read_champion(connection, kind) is not None


def _retrain(demo: _Demo, bases: Mapping[ModelKind, DemoBase]) -> None:
    """Run the retrain DAG. The demo continues if the user has too few images to pass the gates."""

    def prepare() -> Mapping[str, Any]:
        demo.write(f"   {_import_labels(demo)} labeled images to train on")
        return {
            "kinds": "both" if demo.images.is_sample else "classifier",
            "classifier_base": str(bases["classifier"].folder),
            "encoder_base": str(bases["encoder"].folder),
            "from_scratch": bases["classifier"].has_random_weights,
        }

    with _step(demo.write, f"running the DAG {RETRAIN_DAG} in Airflow"):
        try:
            run = demo.follower.run_dag(RETRAIN_DAG, prepare, demo.write)
        except RefusedError as error:
            if demo.images.is_sample:
                raise
            demo.write(f"{error}\n   no classifier was promoted: images get vectors but no categories")
        else:
            _show_gates(demo, run)


def _import_labels(demo: _Demo) -> int:
    from jobs.retrain.labels.import_labels import import_labels

    assert demo.images.labels is not None
    format_name, source = demo.images.labels
    name = "sample" if demo.images.is_sample else "own-images"
    return import_labels(demo.connections, format_name, source, name=name).imported


def _show_gates(demo: _Demo, run: DagRun) -> None:
    for kind in MODEL_KINDS:
        # The run may not have trained this kind.
        with suppress(NotFoundError):
            report = demo.airflow.read_xcom(RETRAIN_DAG, run.run_id, f"{kind}.gate")
            demo.write(f"   gates of the {kind}:")
            for decision in report["decisions"]:
                demo.write(f"     {decision['verdict']:<8}{decision['sentence']}")


def _adopt_encoder(demo: _Demo, base: DemoBase) -> None:
    # Imported here, because torch takes seconds.
    from jobs.retrain.adopt import adopt_encoder
    from jobs.retrain.gates.gate_policy import load_gate_policy

    with _step(demo.write, "adopting an encoder without training, because no image has a text"):
        policy = load_gate_policy(demo.connections.settings.training.gate_policy)
        adopt_encoder(demo.connections, str(base.folder), "make demo", policy)
    write_demo_record(demo.folder, DemoRecord(str(demo.images.folder), reads_texts=not base.has_random_weights))


def _ingest(demo: _Demo, *, attach: bool) -> None:
    """Tag the images in the bucket.

    With ``attach``, follow an active run. Do not use this after an upload: that run may have listed the bucket before.
    """
    with _step(demo.write, f"running the DAG {INGEST_DAG} in Airflow"):
        try:
            run = demo.follower.run_dag(INGEST_DAG, dict, demo.write, attach=attach)
        except RefusedError as error:
            # Too many bad files fail the run, but all other images are tagged.
            if demo.images.is_sample or _choose_product(demo.connections) is None:
                raise
            demo.write(f"{error}\n   the images that could be read are tagged")
            return
        report = demo.airflow.read_xcom(INGEST_DAG, run.run_id, "report")
    if not report["entries"]:
        unchanged = report["discovered"]["unchanged"]
        demo.write(f"\nNothing new: all {unchanged} images in the bucket are tagged or known to be bad.")
        return
    reasons = ", ".join(f"{reason} {count}" for reason, count in report["failure_reasons"].items())
    demo.write(
        f"\nRun {report['run_id']}: {report['entries']} images = {report['tagged']} tagged + {report['reused']} reused "
        f"+ {report['failed']} failed{f' ({reasons})' if reasons else ''}, {report['images_per_second']} images/s"
    )


def _show_results(demo: _Demo, status: StackStatus) -> None:
    """Run three queries, each with its SQL, and suggest what to try next."""
    # The demo is for people, also in a log.
    choose_json(False)
    record = read_demo_record(demo.folder)
    query = TEXT_QUERY if record is not None and record.reads_texts else None
    product_id = _choose_product(demo.connections)
    if query is not None:
        demo.write(f"\nSELECT * FROM catalog.search_products('{query}', k => 5);")
        show_text_search(demo.connections, query, 5, None, demo.files.text_sheet)
    if product_id is not None:
        demo.write(f"\nSELECT * FROM catalog.similar_products('{product_id}', k => 5);")
        show_similar_products(demo.connections, product_id, 5, None, demo.files.product_sheet)
    with demo.connections.engine.connect() as connection:
        rows = connection.exec_driver_sql(COUNT_CATEGORIES).all()
    if rows:
        demo.write(f"\n{COUNT_CATEGORIES};")
        demo.write("\n".join(f"  {category:<10} {count:5d}" for category, count in rows))
    demo.write("\nTry next:")
    search = f'search "{query}" -k 10 --png .local/result.png' if query else "spaces list"
    similar = f"similar {product_id} --png .local/result.png" if product_id else "ingest --plan"
    for command in (search, similar, "models list"):
        demo.write(f"  .venv/bin/catalog {command}")
    login = f"user: {status.username}   password: {status.password}"
    demo.write(f"Search page: {status.airflow_url}/catalog/search   {login}")
    demo.write("Stop it all with `make down`.")


def _choose_product(connections: Connections) -> str | None:
    """Return a product with vectors, preferably with several images; None if no image has a vector."""
    with connections.engine.connect() as connection:
        return choose_example_product(connection)
