"""``make demo``: the real flow on a rendered catalog, from an empty machine to answers."""

import csv
import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import text

from jobs.connections import Connections, connect
from jobs.database.migrations import migrate
from jobs.database.model_versions import read_champion
from jobs.errors import PermanentError
from jobs.local.airflow_client import AirflowClient, DagRun
from jobs.local.airflow_services import AirflowOptions
from jobs.local.console import choose_task_slots, format_login
from jobs.local.follow_run import RunFollower, hold_preparation_lock
from jobs.local.ports import WantedPorts
from jobs.local.sample_catalog import SampleCatalog, SampleCatalogSpec, render_sample_catalog
from jobs.local.stack import StackStatus, start_stack
from jobs.search.console import show_similar_products, show_text_search
from jobs.settings import LOCAL_STACK_FOLDER, LOCATIONS, PROJECT_ROOT, load_settings, names_locations
from jobs.storage.uri import S3Uri

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


def run_demo(write: Write, ports: WantedPorts, files: DemoFiles | None = None) -> None:
    """Run the demo on the local stack.

    Raises:
        PermanentError: the environment names other places, or the run in Airflow failed; the message names the
            task to look at.
    """
    files = files or DemoFiles()
    with _step(write, "starting Postgres, S3 and Airflow"):
        if names_locations(PROJECT_ROOT):
            raise PermanentError(f"the demo fills a bucket of its own: unset {', '.join(LOCATIONS)}, in .env too")
        status = start_stack(LOCAL_STACK_FOLDER, ports, AirflowOptions(pool_slots=choose_task_slots()))
        settings = load_settings()
        migrate(settings.database_url)
    with connect(settings) as connections:
        with hold_preparation_lock(status.folder):
            with _step(write, "rendering a sample catalog"):
                catalog = render_sample_catalog(files.sample, SampleCatalogSpec())
            with _step(write, "putting its photos into the bucket"):
                uploaded = _upload_photos(connections, catalog)
                write(f"   {uploaded} files were new")
        with _open_airflow(status) as airflow:
            follower = RunFollower(airflow, connections.engine, status.folder)
            if _has_champions(connections):
                write("-- champions are there already")
            else:
                with _step(write, f"running the DAG {RETRAIN_DAG} in Airflow"):

                    def prepare() -> Mapping[str, Any]:
                        write(f"   {_import_labels(connections, catalog)} photos to learn from")
                        return _write_bases(files, catalog)

                    run = follower.run_dag(RETRAIN_DAG, prepare, write)
                    _show_gates(airflow, run, write)
            with _step(write, f"running the DAG {INGEST_DAG} in Airflow"):
                # A run that was active before the upload may have listed the bucket without the new photos.
                run = follower.run_dag(INGEST_DAG, dict, write, attach=not uploaded)
                report = airflow.read_xcom(INGEST_DAG, run.run_id, "report")
        _show_report(report, write)
        _show_answers(connections, files, write)
    write(f"\n{format_login(status)}")


@contextmanager
def _step(write: Write, title: str) -> Iterator[None]:
    write(f"-- {title} ...")
    started = time.monotonic()
    yield
    write(f"   done in {time.monotonic() - started:.1f} s")


def _upload_photos(connections: Connections, catalog: SampleCatalog) -> int:
    """Bring the unlabelled part into the bucket; what is there with the same bytes stays as it is."""
    store, source = connections.store, connections.source
    present = {item.key: item.etag for page in store.list_pages(source) for item in page}
    uploaded = 0
    for path in sorted(path for path in catalog.unlabelled_folder.rglob("*") if path.is_file()):
        key = source.key + path.relative_to(catalog.unlabelled_folder).as_posix()
        # The local endpoint's etags are MD5 sums.
        if present.get(key) != hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest():
            store.upload(path, S3Uri(source.bucket, key))
            uploaded += 1
    return uploaded


def _has_champions(connections: Connections) -> bool:
    with connections.engine.connect() as connection:
        return all(read_champion(connection, kind) for kind in ("classifier", "encoder"))


def _import_labels(connections: Connections, catalog: SampleCatalog) -> int:
    from jobs.labelling.import_labels import import_labels

    return import_labels(connections, "csv", catalog.labels_file, name="sample").imported


def _write_bases(files: DemoFiles, catalog: SampleCatalog) -> dict[str, Any]:
    """Random weights to start from, as no pretrained ones can be counted on; returns the run's parameters."""
    # Here, since torch takes seconds to import and a second demo does without.
    from jobs.training.blank_checkpoints import write_blank_bases

    with catalog.labels_file.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    bases = write_blank_bases(files.bases, sorted({row["label"] for row in rows}), [row["text"] for row in rows])
    return {
        "classifier_base": str(bases.classifier.resolve()),
        "encoder_base": str(bases.encoder.resolve()),
        "from_scratch": True,
    }


def _open_airflow(status: StackStatus) -> AirflowClient:
    assert status.airflow_url is not None
    assert status.password is not None
    return AirflowClient(status.airflow_url, status.username, status.password)


def _show_gates(airflow: AirflowClient, run: DagRun, write: Write) -> None:
    """The gates of each kind, as they decided."""
    for kind in ("classifier", "encoder"):
        report = airflow.read_xcom(RETRAIN_DAG, run.run_id, f"{kind}.gate")
        write(f"   gates of the {kind}:")
        for decision in report["decisions"]:
            write(f"     {decision['verdict']:<8}{decision['sentence']}")


def _show_report(report: dict[str, Any], write: Write) -> None:
    if not report["entries"]:
        unchanged = report["discovered"]["unchanged"]
        write(f"\nNothing new: all {unchanged} photos in the bucket are tagged or known to be bad.")
        return
    reasons = ", ".join(f"{reason} {count}" for reason, count in report["failure_reasons"].items())
    write(
        f"\nRun {report['run_id']}: {report['entries']} photos = {report['tagged']} tagged + {report['reused']} reused "
        f"+ {report['failed']} failed ({reasons}), {report['images_per_second']} images/s"
    )


def _show_answers(connections: Connections, files: DemoFiles, write: Write) -> None:
    """Three questions: by words, by product, and a count in plain SQL."""
    write(f"\nSELECT * FROM catalog.search_products('{TEXT_QUERY}', k => 5);")
    show_text_search(connections, TEXT_QUERY, 5, None, files.text_sheet, write)
    with connections.engine.connect() as connection:
        rows = connection.execute(
            text("SELECT category, count(*) FROM catalog.current_image_tags GROUP BY category ORDER BY 2 DESC, 1")
        ).all()
        product_id = connection.execute(
            text("SELECT min(product_id) FROM catalog.current_product_tags WHERE photos > 1")
        ).scalar_one()
    write(f"\nSELECT * FROM catalog.similar_products('{product_id}', k => 5);")
    show_similar_products(connections, product_id, 5, None, files.product_sheet, write)
    write("\nSELECT category, count(*) FROM catalog.current_image_tags GROUP BY category ORDER BY 2 DESC;")
    write("\n".join(f"  {category:<10} {count:5d}" for category, count in rows))
