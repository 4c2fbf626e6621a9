"""A run that two kinds of machines share: one serves OpenVINO graphs, the other programs of torch."""

import json

import numpy as np

from fixtures.champions import make_champion
from fixtures.shop import Shop, TinyModels, make_image
from jobs.connections import Connections
from jobs.database.model_builds import EngineName
from jobs.ingest.ingest import ingest
from jobs.ingest.plan import IngestOptions, plan_run
from jobs.ingest.publish import publish_run
from jobs.ingest.report import report_run
from jobs.ingest.tag_shard import ShardTagger
from jobs.retrain.gates.gate_policy import load_gate_policy
from jobs.retrain.optimize.optimize import make_missing_build

IMAGES, NEIGHBORS = 40, 10
ENGINES: tuple[EngineName, ...] = ("openvino", "torch")
VECTORS = "SELECT image_id, embedding::text FROM catalog.image_embeddings ORDER BY image_id"
BUILDS = """
    SELECT b.engine, b.precision, count(*)
    FROM catalog.{table} r JOIN catalog.model_builds b USING (build_id) GROUP BY 1, 2 ORDER BY 1
"""


def read_vectors(shop: Shop) -> np.ndarray:
    return np.array([json.loads(vector) for _, vector in shop.query(VECTORS)])


def find_neighbors(vectors: np.ndarray) -> list[set[int]]:
    similarities = vectors @ vectors.T
    np.fill_diagonal(similarities, -np.inf)
    return [set(row[:NEIGHBORS]) for row in np.argsort(-similarities, axis=1)]


def on_machine(shop: Shop, engine: EngineName) -> Connections:
    return shop.with_settings(engine=engine, precision="fp32", device="cpu", shard_size=IMAGES // 2)


def test_two_builds_of_a_version_share_a_run_and_its_space(shop: Shop, tiny_models: TinyModels) -> None:
    versions = [
        make_champion(shop.connections, tiny_models.classifier, "classifier"),
        make_champion(shop.connections, tiny_models.encoder, "encoder"),
    ]
    for version in versions:
        make_missing_build(on_machine(shop, "openvino"), version.model_version_id, load_gate_policy())
    shop.put_images(IMAGES)
    plan = plan_run(on_machine(shop, "torch"), "mixed", IngestOptions())
    assert plan.shards == [0, 1]
    for shard, engine in enumerate(ENGINES):
        ShardTagger(on_machine(shop, engine)).tag("mixed", [shard])
    publish_run(shop.connections.engine, "mixed")
    assert report_run(shop.connections, "mixed").tagged == IMAGES
    for table in ("image_tags", "image_embeddings"):
        assert shop.query(BUILDS.format(table=table)) == [(engine, "fp32", IMAGES // 2) for engine in ENGINES]
    mixed, tags = read_vectors(shop), shop.query("SELECT image_id, category FROM catalog.image_tags ORDER BY 1")

    ingest(on_machine(shop, "torch"), IngestOptions(force=True))
    alone = read_vectors(shop)
    assert shop.query(BUILDS.format(table="image_embeddings")) == [("torch", "fp32", IMAGES)]
    assert np.abs(mixed - alone).max() < 1e-3
    found, expected = find_neighbors(mixed), find_neighbors(alone)
    shared = sum(len(one & other) for one, other in zip(found, expected, strict=True))
    assert shared / (IMAGES * NEIGHBORS) > 0.99
    assert shop.query("SELECT image_id, category FROM catalog.image_tags ORDER BY 1") == tags


def test_copies_keep_the_build_of_the_original(shop: Shop, tiny_models: TinyModels) -> None:
    make_champion(shop.connections, tiny_models.encoder, "encoder")
    for number in range(3):
        shop.put(f"copy{number}_1.jpg", make_image(0))
    ingest(shop.connections, IngestOptions())
    assert shop.query(BUILDS.format(table="image_embeddings")) == [("torch", "fp32", 3)]
