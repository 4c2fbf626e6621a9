"""Fill a catalog as `make demo` does, but with untrained models."""

from dataclasses import replace
from pathlib import Path

from sqlalchemy import text

from demo.sample_catalog import SampleCatalog, SampleCatalogSpec, render_sample_catalog
from demo.sample_catalog.products import CATEGORIES
from fixtures.champions import add_build
from fixtures.gate_results import store_gate_results
from fixtures.shop import IMAGE_SIDE
from jobs.connections import Connections
from jobs.database.model_versions import ModelKind, insert_model_version
from jobs.ingest.ingest import ingest
from jobs.ingest.plan import IngestOptions
from jobs.models.registry import upload_checkpoint
from jobs.retrain.promote import promote_candidate
from jobs.serve.client import QueryClient
from tests.end_to_end.live_stack import LiveStack

WORDS = "red striped dress"
NAME = "Striped Dress Red"
SPEC = SampleCatalogSpec(labeled_products=0, unlabeled_products=len(CATEGORIES), duplicates=1)


def seed_catalog(stack: LiveStack, folder: Path) -> None:
    """Fill the bucket and the catalog of a stack. A search for `WORDS` finds the product `NAME`."""
    from demo.blank_checkpoints import write_blank_clip, write_blank_resnet18

    catalog = render_sample_catalog(folder / "sample", SPEC, processes=1)
    write_blank_resnet18(folder / "classifier", IMAGE_SIDE, [category.name for category in CATEGORIES])
    write_blank_clip(folder / "encoder", IMAGE_SIDE, patch_side=16, width=64, dimensions=64, layers=2, texts=[WORDS])
    with stack.connect() as connections:
        _upload_images(connections, catalog)
        _promote(connections, folder / "classifier", "classifier")
        _promote(connections, folder / "encoder", "encoder")
        ingest(connections, IngestOptions())
        stack.wait_for_query_service()
        with QueryClient(stack.environment["CATALOG_QUERY_SERVICE_URL"]) as queries:
            _make_findable(connections, queries.embed_text(WORDS).vector)


def _upload_images(connections: Connections, catalog: SampleCatalog) -> None:
    for path in sorted(path for path in catalog.unlabeled_folder.rglob("*") if path.is_file()):
        key = path.relative_to(catalog.unlabeled_folder).as_posix()
        connections.store.upload(path, replace(connections.source, key=key))


def _promote(connections: Connections, checkpoint: Path, kind: ModelKind) -> None:
    """Promote a checkpoint as if it had passed its gates."""
    uploaded = upload_checkpoint(connections.store, connections.artifacts, checkpoint, kind)
    with connections.engine.begin() as connection:
        version = insert_model_version(connection, uploaded)
        store_gate_results(connection, f"seed/{kind}", kind, version.model_version_id)
    add_build(connections, version, checkpoint)
    promote_candidate(connections, f"seed/{kind}", kind, "tester")


def _make_findable(connections: Connections, vector: tuple[float, ...]) -> None:
    """Give the images of one product the vector of the words, as a trained encoder would."""
    with connections.engine.begin() as connection:
        product_id = connection.execute(
            text("SELECT min(product_id) FROM catalog.current_product_tags WHERE images > 1")
        ).scalar_one()
        connection.execute(
            text("UPDATE catalog.products SET display_name = :name WHERE product_id = :product"),
            {"name": NAME, "product": product_id},
        )
        connection.execute(
            text("""
                UPDATE catalog.image_embeddings SET embedding = CAST(:vector AS halfvec)
                WHERE image_id IN (SELECT image_id FROM catalog.images WHERE product_id = :product)
            """),
            {"vector": str(list(vector)), "product": product_id},
        )
