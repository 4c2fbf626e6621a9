"""Add a year of use to a generated catalog: nightly runs, labels, failures, versions and promotions.

A catalog from `load_catalog` has one classifier and the same confidence everywhere. Here, two classifiers have tagged
every image with varying confidence, and usually agree within a product. Some images are deleted, some have failed, and
some have a label.
"""

import json
from dataclasses import asdict

from sqlalchemy import Connection, Engine, text

from benchmarks.search.generated_catalog import DIMENSIONS, GeneratedCatalog, copy_vectors
from fixtures.gate_results import store_gate_results
from jobs.database.drift_references import settle_drift_reference
from jobs.database.model_builds import NewBuild, insert_builds
from jobs.database.model_versions import MODEL_KINDS, ModelKind, read_live_model
from jobs.database.promotions import NewPromotion, Switch, insert_promotion, insert_switch
from jobs.database.reviews import Answer
from jobs.database.run_history import sum_chunks
from jobs.database.spaces import create_space_index, open_space
from jobs.review.answers import record_answers
from jobs.review.queue import REASONS, find_review_queue, read_review_queue
from jobs.settings import RunSettings

NIGHT = 20_000
"""Images per run. A run has consecutive image ids."""
CHUNK = 128
VERSIONS = 30
RUN_SHOWN = "catalog_ingest/night 0"
RETAG_SHOWN = "catalog_retag/all"
"""A run of five hours over all images."""
RUN_UNDER_WAY = "catalog_ingest/now"
"""A run over all images that is half done."""
ANSWERS_BY_REASON = 144


def simulate_use(engine: Engine, catalog: GeneratedCatalog) -> None:
    """Change a catalog from `load_catalog` into one that was used for a year."""
    with engine.begin() as connection:
        live = {kind: _require_live(connection, kind) for kind in MODEL_KINDS}
        earlier = {kind: _register(connection, kind, "earlier") for kind in MODEL_KINDS}
        _promote(connection, earlier, live)
        parameters = {
            "live": live["classifier"],
            "earlier": earlier["classifier"],
            "encoder": live["encoder"],
            "night": NIGHT,
            "chunk": CHUNK,
            "images": len(catalog.vectors),
        }
        for statement in STATEMENTS:
            connection.execute(text(statement), parameters)
        _keep_totals(connection)
        space_id = open_space(connection, earlier["encoder"], DIMENSIONS)
        copy_vectors(connection, space_id, 1, catalog.vectors[: len(catalog.vectors) // 2])
        create_space_index(connection, space_id)
        settle_drift_reference(connection, live["classifier"])
        for statement in MAP:
            connection.execute(text(statement))
    _vacuum(engine)
    with engine.begin() as connection:
        _review(connection)
    _vacuum(engine)


def _vacuum(engine: Engine) -> None:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))


def _require_live(connection: Connection, kind: ModelKind) -> int:
    live = read_live_model(connection, kind)
    assert live is not None
    return live.model_version_id


def _register(connection: Connection, kind: ModelKind, name: str) -> int:
    """Register a copy of the first version of a kind."""
    version: int = connection.execute(
        text("""
            INSERT INTO catalog.model_versions
                (kind, artifact_uri, weights_sha256, preprocessing, categories, dimensions, code_version)
            SELECT kind, 's3://generated/' || kind || '/' || :name, weights_sha256, preprocessing, categories,
                   dimensions, code_version
            FROM catalog.model_versions WHERE kind = :kind ORDER BY model_version_id LIMIT 1
            RETURNING model_version_id
        """),
        {"kind": kind, "name": name},
    ).scalar_one()
    build = NewBuild(version, "cpu", "torch", "fp32", f"s3://generated/{kind}/build", None, (), "benchmark")
    insert_builds(connection, [build])
    return version


def _promote(connection: Connection, earlier: dict[ModelKind, int], live: dict[ModelKind, int]) -> None:
    """Add weekly candidates, few of which were promoted. The last one passed its gates and awaits a decision."""
    for kind in MODEL_KINDS:
        insert_switch(connection, Switch(kind, earlier[kind], live[kind]))
        insert_promotion(connection, NewPromotion(kind, earlier[kind], None, None, "generated", "the first"))
        insert_switch(connection, Switch(kind, live[kind], earlier[kind]))
        evaluation = store_gate_results(connection, f"model_retrain/{kind}", kind, live[kind])
        insert_promotion(
            connection, NewPromotion(kind, live[kind], earlier[kind], evaluation, "generated", "all passed")
        )
        for number in range(VERSIONS):
            store_gate_results(
                connection, f"model_retrain/{number}", kind, _register(connection, kind, f"week {number}")
            )


def _keep_totals(connection: Connection) -> None:
    """Store the totals of each finished run, as `finish_run` does."""
    statement = text("UPDATE catalog.tagging_runs SET totals = :totals WHERE run_id = :run")
    ended = text("SELECT run_id FROM catalog.tagging_runs WHERE state = 'succeeded'")
    for run_id in connection.execute(ended).scalars().all():
        totals = json.dumps(asdict(sum_chunks(connection, run_id)))
        connection.execute(statement, {"run": run_id, "totals": totals})


def _review(connection: Connection) -> None:
    """Review the images in the queue, and change the category of one in eight."""
    for reason in REASONS:
        queue = read_review_queue(connection, find_review_queue(connection, RunSettings()), reason, ANSWERS_BY_REASON)
        record_answers(
            connection,
            [
                Answer(item.image_id, reason, "a tenth" if number % 8 == 0 else item.category)
                for number, item in enumerate(queue)
            ],
            "viewer@example.test",
        )


NAMES = """
    UPDATE catalog.products SET display_name =
        (CAST('{red,blue,green,black,white,pink,grey,beige,brown,violet}' AS text[]))[1 + number % 10] || ' ' ||
        (CAST('{striped,dotted,plain,checked,floral,ribbed,quilted}' AS text[]))[1 + number % 7] || ' ' ||
        (CAST('{dress,shirt,skirt,coat,hat,shoe,scarf,belt,jumper,jacket,trousers}' AS text[]))[1 + number % 11]
        || CASE WHEN number % 5000 = 0 THEN ' limited' ELSE '' END
    FROM (SELECT product_id AS id, CAST(substr(product_id, 4) AS integer) AS number FROM catalog.products) numbered
    WHERE id = product_id
"""
DELETE_SOME = "UPDATE catalog.images SET deleted_at = now() WHERE image_id % 50 = 7"
RUNS = """
    INSERT INTO catalog.tagging_runs
        (run_id, purpose, source_uri, manifest_uri, classifier_version_id, encoder_version_id, space_id, state,
         discovered, entries, entries_by_reason, report, started_at, finished_at)
    SELECT 'catalog_ingest/night ' || night, 'ingest', 's3://images', 's3://artifacts/night', :live, :encoder,
           (SELECT space_id FROM catalog.embedding_spaces WHERE state = 'live'), 'succeeded',
           jsonb_build_object('new', :night), :night, jsonb_build_object('new', :night),
           jsonb_build_object('drift', jsonb_build_object('is_flagged', night % 17 = 0, 'sentence', 'generated')),
           now() - (last - night) * interval '1 day', now() - (last - night) * interval '1 day' + interval '20 minutes'
    FROM (SELECT (:images - 1) / :night AS last) l CROSS JOIN LATERAL generate_series(0, last) AS night
"""
WHOLE_CATALOG = f"""
    INSERT INTO catalog.tagging_runs
        (run_id, purpose, source_uri, manifest_uri, classifier_version_id, encoder_version_id, space_id, state,
         discovered, entries, entries_by_reason, report, started_at, finished_at)
    SELECT run_id, purpose, 's3://images', 's3://artifacts/all', classifier, :encoder, space_id, run_state,
           '{{}}', :images, '{{}}', '{{}}', now() - started, now() - finished
    FROM catalog.embedding_spaces s CROSS JOIN (
        VALUES ('{RETAG_SHOWN}', 'retag', :earlier, 'succeeded', interval '60 hours', interval '55 hours'),
               ('{RUN_UNDER_WAY}', 'ingest', :live, 'running', interval '2 hours', NULL)
    ) AS r (run_id, purpose, classifier, run_state, started, finished)
    WHERE s.state = 'live'
"""
SHARDS = """
    INSERT INTO catalog.run_shards (run_id, shard, entries, chunks)
    SELECT run_id, 0, entries, (entries + :chunk - 1) / :chunk FROM catalog.tagging_runs
"""
CHUNKS = """
    INSERT INTO catalog.run_chunks
        (run_id, shard, chunk, entries, tagged, reused, failed, failure_reasons, read_seconds, decode_seconds,
         predict_seconds, write_seconds, wall_seconds, committed_at, category_counts, confidence_counts,
         waiting_seconds)
    SELECT s.run_id, 0, chunk, 128, 120, 5, 3, '{"corrupt": 2, "object_missing": 1}', 1, 0.5, 2, 0.1, 2.3,
           r.started_at + chunk * interval '2 seconds', counts, '[0, 0, 1, 2, 3, 5, 8, 13, 30, 58]',
           '{"bucket": 0.1, "decode": 0.2, "forward": 1.9, "database": 0.1}'
    FROM catalog.run_shards s JOIN catalog.tagging_runs r USING (run_id)
    CROSS JOIN generate_series(0, CASE r.state WHEN 'running' THEN s.chunks / 2 ELSE s.chunks END - 1) AS chunk
    CROSS JOIN LATERAL (
        SELECT jsonb_object_agg(category, 1 + (number + chunk) % 7) AS counts
        FROM catalog.model_versions v CROSS JOIN unnest(v.categories) WITH ORDINALITY AS c (category, number)
        WHERE v.model_version_id = :live
    ) c
"""
TAGS = """
    INSERT INTO catalog.image_tags
        (image_id, classifier_version_id, build_id, category, confidence, top_3, probabilities, content_hash,
         tagged_at)
    SELECT image_id, :{version},
           (SELECT min(build_id) FROM catalog.model_builds WHERE model_version_id = :{version}), category, confidence,
           jsonb_build_array(jsonb_build_object('category', category, 'confidence', confidence),
                             jsonb_build_object('category', 'a tenth', 'confidence', (1 - confidence) / 2),
                             jsonb_build_object('category', 'a hundredth', 'confidence', (1 - confidence) / 3)),
           '{{}}', content_hash, {tagged_at}
    FROM (
        SELECT i.image_id, i.content_hash,
               CASE WHEN {noise} % {disagreeing} = 0 THEN 'category 0' || image_id % 10 ELSE d.category END AS category,
               CAST(1 - 0.7 * power({noise} % 100000 / 100000.0, 4) AS real) AS confidence
        FROM catalog.images i JOIN catalog.product_tags d USING (product_id)
        WHERE d.classifier_version_id = :live AND image_id % 400 <> 3 {condition}
    ) noisy
"""
NOISE = "(hashint8extended(image_id, {seed}) & 1048575)"
LIVE_TAGS = TAGS.format(
    version="live",
    noise=NOISE.format(seed=7),
    disagreeing=40,
    condition="",
    tagged_at="""now() - ((:images - 1) / :night - image_id / :night) * interval '1 day'
                 + (image_id % :night) * interval '50 milliseconds'""",
)
EARLIER_TAGS = TAGS.format(
    version="earlier",
    noise=NOISE.format(seed=8),
    disagreeing=12,
    condition="AND image_id % 20 <> 11",
    tagged_at="now() - interval '60 hours' + CAST(image_id AS float) / :images * interval '5 hours'",
)
PRODUCT_TAGS = """
    INSERT INTO catalog.product_tags
        (product_id, classifier_version_id, category, confidence, images, images_disagree, fused_from)
    SELECT i.product_id, t.classifier_version_id, mode() WITHIN GROUP (ORDER BY t.category), avg(t.confidence),
           count(*), count(DISTINCT t.category) > 1, 'generated'
    FROM catalog.images i JOIN catalog.image_tags t USING (image_id)
    WHERE i.deleted_at IS NULL GROUP BY i.product_id, t.classifier_version_id
"""
FAILURES = """
    INSERT INTO catalog.item_failures
        (image_id, etag, stage, reason, detail, attempts, run_id, ignored_by, ignored_at)
    SELECT image_id, etag, CASE WHEN image_id % 3 = 0 THEN 'read' ELSE 'decode' END,
           (CAST('{corrupt,truncated,too_large,object_missing,access_denied}' AS text[]))[1 + image_id / 400 % 5],
           'generated', 1 + image_id % 3, 'catalog_ingest/night ' || image_id / :night,
           CASE WHEN image_id % 11 = 0 THEN 'somebody' END, CASE WHEN image_id % 11 = 0 THEN now() END
    FROM catalog.images WHERE image_id % 400 = 3
"""
LABEL_SOME = """
    INSERT INTO catalog.labels (image_id, category, labeled_by, labeled_at)
    SELECT t.image_id, CASE WHEN t.image_id % 50 = 0 THEN 'a hundredth' ELSE t.category END, 'somebody', now()
    FROM catalog.image_tags t
    WHERE t.classifier_version_id = :live AND t.image_id % 20 = 0
"""
QUESTIONS = """
    INSERT INTO catalog.text_queries (query_text, encoder_version_id, embedding)
    SELECT 'question ' || image_id, :encoder, embedding
    FROM catalog.image_embeddings e JOIN catalog.embedding_spaces s USING (space_id)
    WHERE s.state = 'live' AND e.image_id <= 5000
"""
MAP = (
    """
    INSERT INTO catalog.maps (space_id, added_points)
    SELECT space_id, 0 FROM catalog.embedding_spaces WHERE state = 'live'
    """,
    """
    INSERT INTO catalog.map_points (space_id, image_id, position, embedded_at)
    SELECT m.space_id, i.image_id, point(random() * 200 - 100, random() * 200 - 100), now()
    FROM catalog.maps m CROSS JOIN (
        SELECT image_id FROM catalog.images WHERE deleted_at IS NULL ORDER BY hashint8extended(image_id, 0) LIMIT 100000
    ) i
    """,
)
"""A map of random places."""

STATEMENTS = (
    NAMES,
    DELETE_SOME,
    RUNS,
    WHOLE_CATALOG,
    SHARDS,
    CHUNKS,
    "TRUNCATE catalog.image_tags",
    LIVE_TAGS,
    EARLIER_TAGS,
    "TRUNCATE catalog.product_tags",
    PRODUCT_TAGS,
    FAILURES,
    LABEL_SOME,
    QUESTIONS,
)
