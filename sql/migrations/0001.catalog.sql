-- The schema of the catalog: products and images, models and promotions, tags and vectors, labels and trainings, runs.
--
-- Views and functions are not here: every `catalog migrate` defines them again from sql/views and sql/functions.
-- A released migration never changes; sql/migrations/frozen.txt holds its hash.

CREATE SCHEMA catalog;
CREATE EXTENSION IF NOT EXISTS vector;

CREATE TABLE catalog.migrations (
    name       text PRIMARY KEY,
    applied_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE catalog.migrations IS 'The applied files of sql/migrations; each row is written in its transaction';

CREATE FUNCTION catalog.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'catalog.% is append-only', TG_TABLE_NAME USING HINT = 'Insert a new row instead.';
END $$;

-- Products and images -------------------------------------------------------------------------------------------

CREATE TABLE catalog.products (
    product_id    text PRIMARY KEY,
    display_name  text,
    description   text,
    shop_category text,
    updated_at    timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX products_words ON catalog.products USING gin (to_tsvector('simple', coalesce(display_name, '')));
CREATE INDEX products_prefix ON catalog.products (product_id text_pattern_ops);
COMMENT ON TABLE catalog.products IS
    'What the shop sells; product_id is read from the object key by CATALOG_PRODUCT_ID_PATTERN';
COMMENT ON COLUMN catalog.products.shop_category IS 'From the shop''s own products file; never used as a label';

CREATE TABLE catalog.images (
    image_id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    bucket        text NOT NULL,
    object_key    text NOT NULL,
    product_id    text NOT NULL REFERENCES catalog.products,
    etag          text NOT NULL,
    size_bytes    bigint NOT NULL,
    content_hash  bytea CHECK (octet_length(content_hash) = 32),
    width         integer,
    height        integer,
    first_seen_at timestamptz NOT NULL DEFAULT now(),
    deleted_at    timestamptz,
    observed_at   timestamptz NOT NULL DEFAULT now(),
    UNIQUE (bucket, object_key)
);
-- INCLUDE: searches in a category read these columns from the index alone, eight times faster for 10,000 images.
CREATE INDEX images_product ON catalog.images (product_id) INCLUDE (image_id);
CREATE INDEX images_content ON catalog.images (content_hash);
CREATE INDEX images_deleted ON catalog.images (image_id) WHERE deleted_at IS NOT NULL;
-- A random but stable order, from which the audit draws images.
CREATE INDEX images_audit_order ON catalog.images (hashint8extended(image_id, 0));
COMMENT ON COLUMN catalog.images.etag IS 'As the bucket lists it now';
COMMENT ON COLUMN catalog.images.content_hash IS
    'sha256 of the bytes under this etag; null until they are read, and again when the etag changes';
COMMENT ON COLUMN catalog.images.width IS 'Pixels after EXIF orientation';
COMMENT ON COLUMN catalog.images.deleted_at IS
    'When the object was first missing from the bucket; searches leave such an image out';
COMMENT ON COLUMN catalog.images.observed_at IS
    'When the bucket was first found to hold this version, or no longer any; an older inventory does not change the row';

-- Models --------------------------------------------------------------------------------------------------------

CREATE TABLE catalog.model_versions (
    model_version_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind             text NOT NULL CHECK (kind IN ('classifier', 'encoder')),
    artifact_uri     text NOT NULL,
    weights_sha256   text NOT NULL CHECK (weights_sha256 ~ '^[0-9a-f]{64}$'),
    preprocessing    jsonb NOT NULL,
    categories       text[],
    dimensions       integer,
    data_snapshot    text,
    text_uri         text,
    code_version     text NOT NULL,
    library_versions jsonb NOT NULL DEFAULT '{}',
    metrics          jsonb NOT NULL DEFAULT '{}',
    created_at       timestamptz NOT NULL DEFAULT now(),
    UNIQUE (kind, artifact_uri),
    UNIQUE (model_version_id, kind),
    CHECK ((kind = 'classifier') = (categories IS NOT NULL)),
    CHECK ((kind = 'encoder') = (dimensions IS NOT NULL))
);
COMMENT ON COLUMN catalog.model_versions.categories IS 'In the order of the classifier''s outputs';
COMMENT ON COLUMN catalog.model_versions.text_uri IS
    'The exported text tower of an encoder; null if Transformers serves it';
COMMENT ON COLUMN catalog.model_versions.code_version IS 'The commit that built it; -dirty with local changes';

CREATE TABLE catalog.model_builds (
    build_id         integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    model_version_id integer NOT NULL REFERENCES catalog.model_versions,
    device_class     text NOT NULL CHECK (device_class IN ('cpu', 'cuda')),
    engine           text NOT NULL CHECK (engine IN ('torch', 'openvino')),
    precision        text NOT NULL CHECK (precision IN ('fp32', 'bf16', 'fp16', 'int8')),
    artifact_uri     text,
    fidelity         jsonb,
    losses           text[] NOT NULL DEFAULT '{}',
    machine          text NOT NULL,
    created_at       timestamptz NOT NULL DEFAULT now(),
    UNIQUE (model_version_id, device_class, engine, precision),
    CHECK ((artifact_uri IS NULL) = (losses <> '{}'))
);
COMMENT ON TABLE catalog.model_builds IS
    'How each class of device runs a version. Builds of a version that were admitted share its vector space';
COMMENT ON COLUMN catalog.model_builds.engine IS 'torch, or a graph of OpenVINO on the CPU';
COMMENT ON COLUMN catalog.model_builds.artifact_uri IS 'Null if the build was rejected';
COMMENT ON COLUMN catalog.model_builds.fidelity IS
    'How its outputs differ from float32 on the test images; null if it was not compared';
COMMENT ON COLUMN catalog.model_builds.losses IS 'The criteria of the fidelity gate that it failed';
COMMENT ON COLUMN catalog.model_builds.machine IS 'The processor or GPU that it was made on';

-- Tags and vectors ----------------------------------------------------------------------------------------------

CREATE TABLE catalog.image_tags (
    image_id              bigint NOT NULL REFERENCES catalog.images,
    classifier_version_id integer NOT NULL REFERENCES catalog.model_versions,
    build_id              integer NOT NULL REFERENCES catalog.model_builds,
    category              text NOT NULL,
    confidence            real NOT NULL CHECK (confidence BETWEEN 0 AND 1),
    top_3                 jsonb NOT NULL,
    probabilities         real[] NOT NULL,
    content_hash          bytea NOT NULL,
    tagged_at             timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (image_id, classifier_version_id)
);
CREATE INDEX image_tags_content ON catalog.image_tags (content_hash, classifier_version_id);
-- For the filters of the pages, which continue from any row.
CREATE INDEX image_tags_category ON catalog.image_tags (classifier_version_id, category, image_id);
CREATE INDEX image_tags_category_confidence ON catalog.image_tags (classifier_version_id, category, confidence, image_id);
CREATE INDEX image_tags_confidence ON catalog.image_tags (classifier_version_id, confidence, image_id);
CREATE INDEX image_tags_time ON catalog.image_tags (classifier_version_id, tagged_at, image_id);
COMMENT ON COLUMN catalog.image_tags.top_3 IS 'Up to three {"category", "confidence"}, best first';
COMMENT ON COLUMN catalog.image_tags.probabilities IS 'In the order of model_versions.categories';
COMMENT ON COLUMN catalog.image_tags.content_hash IS 'sha256 of the bytes that the model saw';

CREATE TABLE catalog.product_tags (
    product_id            text NOT NULL REFERENCES catalog.products,
    classifier_version_id integer NOT NULL REFERENCES catalog.model_versions,
    category              text NOT NULL,
    confidence            real NOT NULL CHECK (confidence BETWEEN 0 AND 1),
    images                integer NOT NULL,
    images_disagree       boolean NOT NULL,
    fused_from            text NOT NULL,
    tagged_at             timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (product_id, classifier_version_id)
);
CREATE INDEX product_tags_category ON catalog.product_tags (classifier_version_id, category) INCLUDE (product_id);
CREATE INDEX product_tags_disagreeing ON catalog.product_tags (classifier_version_id, product_id)
    WHERE images_disagree;
COMMENT ON COLUMN catalog.product_tags.fused_from IS
    'md5 of the ids and tagging times of the images; a change means that the tags have to be fused again';

CREATE TABLE catalog.embedding_spaces (
    space_id           integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    encoder_version_id integer NOT NULL UNIQUE REFERENCES catalog.model_versions,
    dimensions         integer NOT NULL CHECK (dimensions BETWEEN 1 AND 4000),
    state              text NOT NULL DEFAULT 'building' CHECK (state IN ('building', 'live', 'retired')),
    created_at         timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX embedding_spaces_one_live ON catalog.embedding_spaces (state) WHERE state = 'live';
COMMENT ON TABLE catalog.embedding_spaces IS
    'All vectors of one encoder, whatever build computed them; vectors of two spaces are never comparable';

-- One partition and one HNSW index for each space; jobs create both when a space is opened.
CREATE TABLE catalog.image_embeddings (
    space_id     integer NOT NULL REFERENCES catalog.embedding_spaces,
    image_id     bigint NOT NULL REFERENCES catalog.images,
    build_id     integer NOT NULL REFERENCES catalog.model_builds,
    content_hash bytea NOT NULL,
    embedding    halfvec NOT NULL,
    embedded_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (space_id, image_id)
) PARTITION BY LIST (space_id);
ALTER TABLE catalog.image_embeddings ALTER COLUMN embedding SET STORAGE PLAIN;
CREATE INDEX image_embeddings_content ON catalog.image_embeddings (content_hash);
COMMENT ON COLUMN catalog.image_embeddings.embedding IS 'Unit length, rounded to half precision';

-- In a large category, searches compare these short codes first. Unlike vectors, they are stored sorted by category.
CREATE TABLE catalog.vector_codes (
    space_id         integer NOT NULL REFERENCES catalog.embedding_spaces,
    image_id         bigint NOT NULL REFERENCES catalog.images,
    image_category   text,
    product_category text,
    code             bit varying NOT NULL,
    PRIMARY KEY (space_id, image_id)
);
CREATE INDEX vector_codes_image_category ON catalog.vector_codes (space_id, image_category) INCLUDE (image_id, code);
CREATE INDEX vector_codes_product_category ON catalog.vector_codes (space_id, product_category)
    INCLUDE (image_id, code);
COMMENT ON TABLE catalog.vector_codes IS
    'Preselects the vectors to compare; derived from vectors and current tags when a run is published';
COMMENT ON COLUMN catalog.vector_codes.code IS 'The signs of the vector''s numbers, one bit each';

CREATE TABLE catalog.text_queries (
    query_text         text NOT NULL CHECK (octet_length(query_text) <= 2000),
    encoder_version_id integer NOT NULL REFERENCES catalog.model_versions,
    embedding          halfvec NOT NULL,
    embedded_at        timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (query_text, encoder_version_id)
);
CREATE INDEX text_queries_oldest ON catalog.text_queries (encoder_version_id, embedded_at, query_text);
COMMENT ON TABLE catalog.text_queries IS
    'Vectors of texts from `catalog embed-text`, for catalog.search_products';

-- The map of the catalog, a projection of a space to two dimensions.
CREATE TABLE catalog.maps (
    space_id     integer PRIMARY KEY REFERENCES catalog.embedding_spaces,
    added_points integer NOT NULL,
    drawn_at     timestamptz NOT NULL DEFAULT now()
);
COMMENT ON COLUMN catalog.maps.added_points IS
    'Points placed next to their neighbors since all points were last arranged';

CREATE TABLE catalog.map_points (
    space_id    integer NOT NULL REFERENCES catalog.maps,
    image_id    bigint NOT NULL REFERENCES catalog.images,
    position    point NOT NULL,
    embedded_at timestamptz NOT NULL,
    PRIMARY KEY (space_id, image_id)
);
CREATE INDEX map_points_position ON catalog.map_points USING gist (position);
COMMENT ON TABLE catalog.map_points IS 'A random sample of the images of a space, at most 100,000';
COMMENT ON COLUMN catalog.map_points.position IS 'In hundredths, from -327 to 327: vectors that are near have near points';
COMMENT ON COLUMN catalog.map_points.embedded_at IS 'Of the vector that was placed; an image with another one is placed again';

-- Labels and reviews --------------------------------------------------------------------------------------------

CREATE TABLE catalog.labels (
    label_id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    image_id    bigint NOT NULL REFERENCES catalog.images,
    category    text NOT NULL,
    labeled_by text NOT NULL,
    labeled_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX labels_latest ON catalog.labels (image_id, label_id DESC);
CREATE INDEX labels_category ON catalog.labels (category, image_id);
COMMENT ON TABLE catalog.labels IS 'The latest label of an image overrules every tag';

-- Searches in a category reflect a new or deleted label immediately.
CREATE FUNCTION catalog.recategorize_codes() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    changed bigint := CASE TG_OP WHEN 'DELETE' THEN OLD.image_id ELSE NEW.image_id END;
    product text := (SELECT i.product_id FROM catalog.images i WHERE i.image_id = changed);
    of_image text := (SELECT t.category FROM catalog.current_image_tags t WHERE t.image_id = changed);
    of_product text := (SELECT t.category FROM catalog.current_product_tags t WHERE t.product_id = product);
BEGIN
    UPDATE catalog.vector_codes c SET image_category = of_image WHERE c.image_id = changed;
    UPDATE catalog.vector_codes c SET product_category = of_product
    FROM catalog.images i WHERE i.product_id = product AND c.image_id = i.image_id;
    RETURN NULL;
END $$;
CREATE TRIGGER labels_win_at_once AFTER INSERT ON catalog.labels
    FOR EACH ROW EXECUTE FUNCTION catalog.recategorize_codes();
CREATE TRIGGER undone_labels_lose_at_once AFTER DELETE ON catalog.labels
    FOR EACH ROW EXECUTE FUNCTION catalog.recategorize_codes();

CREATE TABLE catalog.reviews (
    review_id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    image_id              bigint NOT NULL REFERENCES catalog.images,
    classifier_version_id integer NOT NULL REFERENCES catalog.model_versions,
    model_category        text NOT NULL,
    confidence            real NOT NULL CHECK (confidence BETWEEN 0 AND 1),
    reason                text NOT NULL
        CHECK (reason IN ('low_confidence', 'images_disagree', 'label_error', 'drifted_category', 'audit',
                          'correction')),
    answer                text NOT NULL,
    label_id              bigint REFERENCES catalog.labels ON DELETE SET NULL,
    reviewed_by           text NOT NULL,
    reviewed_at           timestamptz NOT NULL DEFAULT now(),
    undone_by             text,
    undone_at             timestamptz,
    CHECK ((undone_by IS NULL) = (undone_at IS NULL))
);
CREATE INDEX reviews_image ON catalog.reviews (image_id);
CREATE INDEX reviews_classifier ON catalog.reviews (classifier_version_id, reason) WHERE undone_at IS NULL;
CREATE INDEX reviews_person ON catalog.reviews (reviewed_by, review_id DESC);
CREATE INDEX reviews_undone ON catalog.reviews (undone_at) WHERE undone_at IS NOT NULL;
COMMENT ON TABLE catalog.reviews IS 'The answers of reviewers, and why each image was shown';
COMMENT ON COLUMN catalog.reviews.model_category IS 'The classifier''s tag at that time';
COMMENT ON COLUMN catalog.reviews.reason IS
    'Why the image was shown: audit images are drawn at random to measure accuracy, others because they are hard. '
    'Corrections were made outside the queue, where the tag was seen';
COMMENT ON COLUMN catalog.reviews.answer IS 'A category, or ''not clothing''';
COMMENT ON COLUMN catalog.reviews.label_id IS 'The label that the answer became; null once it is undone';

CREATE TABLE catalog.review_claims (
    image_id   bigint PRIMARY KEY REFERENCES catalog.images,
    claimed_by text NOT NULL,
    expires_at timestamptz NOT NULL
);
COMMENT ON TABLE catalog.review_claims IS
    'Images on the screens of reviewers, which the queue does not show to anyone else until the claim expires';

-- Training data -------------------------------------------------------------------------------------------------

CREATE TABLE catalog.examples (
    example_id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    source          text NOT NULL,
    source_key      text NOT NULL,
    content_hash    bytea NOT NULL CHECK (octet_length(content_hash) = 32),
    perceptual_hash bytea NOT NULL CHECK (octet_length(perceptual_hash) = 32),
    category        text NOT NULL CHECK (category <> ''),
    title           text NOT NULL DEFAULT '',
    description     text NOT NULL DEFAULT '',
    group_name      text NOT NULL,
    import_id       text NOT NULL,
    imported_at     timestamptz NOT NULL DEFAULT now(),
    UNIQUE (source, source_key)
);
CREATE INDEX examples_content ON catalog.examples (content_hash);
COMMENT ON TABLE catalog.examples IS
    'Labeled images for training; their bytes are in the artifacts under their content hash';
COMMENT ON COLUMN catalog.examples.source IS
    'The name given at the import, or "catalog" for labels of the catalog''s own images';
COMMENT ON COLUMN catalog.examples.source_key IS 'The image''s name in its source';
COMMENT ON COLUMN catalog.examples.perceptual_hash IS '256 bits; near duplicates differ in few of them';
COMMENT ON COLUMN catalog.examples.group_name IS
    'The product, photographer or other group that must not be split between training and test';

CREATE TABLE catalog.dataset_snapshots (
    snapshot_id  text PRIMARY KEY CHECK (snapshot_id ~ '^[0-9a-f]{64}$'),
    artifact_uri text NOT NULL,
    report       jsonb NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE catalog.dataset_snapshots IS 'Immutable labeled data sets, named by the hash of their rows';
COMMENT ON COLUMN catalog.dataset_snapshots.report IS 'Counts by split and category, and what was dropped and why';

CREATE TABLE catalog.split_memory (
    content_hash      bytea PRIMARY KEY CHECK (octet_length(content_hash) = 32),
    split             text NOT NULL CHECK (split IN ('train', 'test')),
    first_snapshot_id text NOT NULL REFERENCES catalog.dataset_snapshots
);
COMMENT ON TABLE catalog.split_memory IS
    'test for every image that was ever tested on, which stays in test; train for all others of earlier snapshots';

-- Candidates, gates and promotions ------------------------------------------------------------------------------

CREATE TABLE catalog.trainings (
    run_id           text NOT NULL,
    kind             text NOT NULL CHECK (kind IN ('classifier', 'encoder')),
    snapshot_id      text NOT NULL REFERENCES catalog.dataset_snapshots,
    model_version_id integer NOT NULL,
    settings         jsonb NOT NULL,
    report           jsonb NOT NULL,
    finished_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (run_id, kind),
    FOREIGN KEY (model_version_id, kind) REFERENCES catalog.model_versions (model_version_id, kind)
);
COMMENT ON TABLE catalog.trainings IS 'Which candidate a run trained, so that a repeated run does not train again';

CREATE TABLE catalog.evaluations (
    evaluation_id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run_id               text NOT NULL,
    kind                 text NOT NULL CHECK (kind IN ('classifier', 'encoder')),
    snapshot_id          text NOT NULL REFERENCES catalog.dataset_snapshots,
    candidate_version_id integer NOT NULL,
    champion_version_id  integer,
    metrics              jsonb NOT NULL,
    artifact_uri         text NOT NULL,
    evaluated_at         timestamptz NOT NULL DEFAULT now(),
    page_sha256          bytea CHECK (length(page_sha256) = 32),
    FOREIGN KEY (candidate_version_id, kind) REFERENCES catalog.model_versions (model_version_id, kind),
    FOREIGN KEY (champion_version_id, kind) REFERENCES catalog.model_versions (model_version_id, kind)
);
COMMENT ON TABLE catalog.evaluations IS 'Candidate and champion on the same frozen test images, in the same run';
COMMENT ON COLUMN catalog.evaluations.champion_version_id IS
    'The champion that the candidate was compared with; null where there was none';
COMMENT ON COLUMN catalog.evaluations.artifact_uri IS 'The folder of predictions, flips, label audit and page';
COMMENT ON COLUMN catalog.evaluations.page_sha256 IS
    'Of page.html in that folder, as the latest gate decision wrote it: the pages show no other file; null before';

CREATE TABLE catalog.gate_decisions (
    gate_decision_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    evaluation_id    bigint NOT NULL REFERENCES catalog.evaluations,
    gate             text NOT NULL,
    value            double precision,
    bound            double precision,
    verdict          text NOT NULL CHECK (verdict IN ('passed', 'failed', 'skipped')),
    sentence         text NOT NULL,
    decided_at       timestamptz NOT NULL DEFAULT now(),
    UNIQUE (evaluation_id, gate, decided_at)
);
CREATE TRIGGER gate_decisions_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON catalog.gate_decisions
    FOR EACH STATEMENT EXECUTE FUNCTION catalog.refuse_change();
COMMENT ON TABLE catalog.gate_decisions IS
    'Append-only: decisions of the same time belong together, and the latest of an evaluation count';
COMMENT ON COLUMN catalog.gate_decisions.value IS 'Null where it was missing or not a number, which fails the gate';

CREATE TABLE catalog.champion_decisions (
    decision_id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind          text NOT NULL CHECK (kind IN ('classifier', 'encoder')),
    run_id        text,
    to_version_id integer,
    reason        text NOT NULL,
    decided_by    text NOT NULL,
    decided_at    timestamptz NOT NULL DEFAULT now(),
    done_at       timestamptz,
    FOREIGN KEY (to_version_id, kind) REFERENCES catalog.model_versions (model_version_id, kind),
    CHECK ((run_id IS NULL) <> (to_version_id IS NULL))
);
COMMENT ON TABLE catalog.champion_decisions IS
    'Promotions and rollbacks requested on the page Models; the DAG model_decision carries out each once';
COMMENT ON COLUMN catalog.champion_decisions.run_id IS 'The run whose candidate to promote; null for rollbacks';
COMMENT ON COLUMN catalog.champion_decisions.to_version_id IS 'The version to roll back to; null for promotions';
COMMENT ON COLUMN catalog.champion_decisions.done_at IS
    'When it was carried out, in the transaction of the promotion; null before';

CREATE TABLE catalog.promotions (
    promotion_id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind                text NOT NULL CHECK (kind IN ('classifier', 'encoder')),
    model_version_id    integer NOT NULL,
    replaced_version_id integer,
    promoted_by         text NOT NULL,
    reason              text NOT NULL,
    promoted_at         timestamptz NOT NULL DEFAULT now(),
    evaluation_id       bigint REFERENCES catalog.evaluations,
    FOREIGN KEY (model_version_id, kind) REFERENCES catalog.model_versions (model_version_id, kind),
    FOREIGN KEY (replaced_version_id, kind) REFERENCES catalog.model_versions (model_version_id, kind)
);
CREATE INDEX promotions_latest ON catalog.promotions (kind, promotion_id DESC);
CREATE TRIGGER promotions_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON catalog.promotions
    FOR EACH STATEMENT EXECUTE FUNCTION catalog.refuse_change();
COMMENT ON TABLE catalog.promotions IS
    'Append-only: the champion of a kind is its latest promotion; a rollback is one more row';
COMMENT ON COLUMN catalog.promotions.evaluation_id IS
    'The evaluation that justifies the promotion; null for rollbacks and for an adopted first encoder';

CREATE TABLE catalog.switches (
    switch_id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind                text NOT NULL CHECK (kind IN ('classifier', 'encoder')),
    model_version_id    integer NOT NULL,
    replaced_version_id integer,
    report              jsonb NOT NULL DEFAULT '{}',
    switched_at         timestamptz NOT NULL DEFAULT now(),
    FOREIGN KEY (model_version_id, kind) REFERENCES catalog.model_versions (model_version_id, kind),
    FOREIGN KEY (replaced_version_id, kind) REFERENCES catalog.model_versions (model_version_id, kind)
);
CREATE INDEX switches_latest ON catalog.switches (kind, switch_id DESC);
CREATE TRIGGER switches_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON catalog.switches
    FOR EACH STATEMENT EXECUTE FUNCTION catalog.refuse_change();
COMMENT ON TABLE catalog.switches IS
    'Append-only: the model of the latest switch of its kind is live; a switch follows a promotion once the whole '
    'catalog is retagged';

CREATE TABLE catalog.drift_references (
    classifier_version_id integer PRIMARY KEY REFERENCES catalog.model_versions,
    category_counts       jsonb NOT NULL,
    confidence_counts     jsonb NOT NULL,
    measured_on           text NOT NULL CHECK (measured_on IN ('test', 'catalog')),
    measured_at           timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE catalog.drift_references IS
    'The distribution of a classifier''s tags when it was accepted; every run is compared with it';
COMMENT ON COLUMN catalog.drift_references.confidence_counts IS 'Images in ten bins of confidence of equal width';

-- Runs ----------------------------------------------------------------------------------------------------------

CREATE TABLE catalog.tagging_runs (
    run_id                text PRIMARY KEY,
    source_uri            text NOT NULL,
    manifest_uri          text NOT NULL,
    classifier_version_id integer REFERENCES catalog.model_versions,
    encoder_version_id    integer NOT NULL REFERENCES catalog.model_versions,
    space_id              integer NOT NULL REFERENCES catalog.embedding_spaces,
    state                 text NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'succeeded', 'failed')),
    discovered            jsonb NOT NULL,
    entries               integer NOT NULL,
    entries_by_reason     jsonb NOT NULL,
    report                jsonb,
    started_at            timestamptz NOT NULL DEFAULT now(),
    finished_at           timestamptz,
    purpose               text NOT NULL DEFAULT 'ingest' CHECK (purpose IN ('ingest', 'retag')),
    totals                jsonb
);
CREATE INDEX tagging_runs_time ON catalog.tagging_runs (started_at DESC);
COMMENT ON COLUMN catalog.tagging_runs.classifier_version_id IS
    'Null if the catalog had no classifier: images got only vectors';
COMMENT ON COLUMN catalog.tagging_runs.discovered IS
    'Images by how the listing differed from the catalog: new, changed, restored, unchanged, vanished';
COMMENT ON COLUMN catalog.tagging_runs.purpose IS
    'ingest tags new images with the live models; retag tags the whole catalog with the champions';
COMMENT ON COLUMN catalog.tagging_runs.totals IS
    'The sums over the chunks of a complete run; null while more chunks can come';

CREATE TABLE catalog.run_shards (
    run_id  text NOT NULL REFERENCES catalog.tagging_runs,
    shard   integer NOT NULL,
    entries integer NOT NULL,
    chunks  integer NOT NULL,
    PRIMARY KEY (run_id, shard)
);

CREATE TABLE catalog.run_chunks (
    run_id            text NOT NULL,
    shard             integer NOT NULL,
    chunk             integer NOT NULL,
    entries           integer NOT NULL,
    tagged            integer NOT NULL,
    reused            integer NOT NULL,
    failed            integer NOT NULL,
    failure_reasons   jsonb NOT NULL,
    read_seconds      double precision NOT NULL,
    decode_seconds    double precision NOT NULL,
    predict_seconds   double precision NOT NULL,
    write_seconds     double precision NOT NULL,
    wall_seconds      double precision NOT NULL,
    committed_at      timestamptz NOT NULL DEFAULT now(),
    category_counts   jsonb NOT NULL DEFAULT '{}',
    confidence_counts jsonb NOT NULL DEFAULT '[]',
    waiting_seconds   jsonb NOT NULL DEFAULT '{}',
    embedded          integer NOT NULL DEFAULT 0,
    has_index         boolean NOT NULL DEFAULT false,
    device_class      text NOT NULL DEFAULT 'cpu' CHECK (device_class IN ('cpu', 'cuda')),
    PRIMARY KEY (run_id, shard, chunk),
    FOREIGN KEY (run_id, shard) REFERENCES catalog.run_shards,
    CHECK (entries = tagged + reused + failed)
);
COMMENT ON TABLE catalog.run_chunks IS
    'The ledger: a chunk is here if and only if its tags, vectors and failures are committed';
COMMENT ON COLUMN catalog.run_chunks.tagged IS 'Images that a model processed, also those that only the encoder did';
COMMENT ON COLUMN catalog.run_chunks.category_counts IS
    'Images that the classifier tagged in this chunk, by category, without reused tags';
COMMENT ON COLUMN catalog.run_chunks.confidence_counts IS 'The same images in ten bins of confidence of equal width';
COMMENT ON COLUMN catalog.run_chunks.waiting_seconds IS
    'Time blocked on bucket, decode, forward and database until this chunk was written';
COMMENT ON COLUMN catalog.run_chunks.embedded IS 'Vectors that were written, copies included';
COMMENT ON COLUMN catalog.run_chunks.has_index IS
    'Whether the space had its index by then, so that each vector was inserted into it';
COMMENT ON COLUMN catalog.run_chunks.device_class IS 'The class of the device that ran the models; the next plan depends on its speed';

CREATE TABLE catalog.item_failures (
    image_id        bigint PRIMARY KEY REFERENCES catalog.images,
    etag            text NOT NULL,
    stage           text NOT NULL CHECK (stage IN ('read', 'decode')),
    reason          text NOT NULL,
    detail          text NOT NULL,
    attempts        integer NOT NULL DEFAULT 1,
    run_id          text NOT NULL REFERENCES catalog.tagging_runs,
    first_failed_at timestamptz NOT NULL DEFAULT now(),
    last_failed_at  timestamptz NOT NULL DEFAULT now(),
    resolved_at     timestamptz,
    retry_requested_by  text,
    retry_requested_at  timestamptz,
    ignored_by      text,
    ignored_at      timestamptz,
    CHECK ((retry_requested_by IS NULL) = (retry_requested_at IS NULL)),
    CHECK ((ignored_by IS NULL) = (ignored_at IS NULL)),
    CHECK (ignored_at IS NULL OR retry_requested_at IS NULL)
);
CREATE INDEX item_failures_open ON catalog.item_failures (image_id) WHERE resolved_at IS NULL;
COMMENT ON COLUMN catalog.item_failures.etag IS
    'The bytes that failed: they are only retried when they change or the reason is temporary';
COMMENT ON COLUMN catalog.item_failures.resolved_at IS 'When a later run tagged the image';
COMMENT ON COLUMN catalog.item_failures.retry_requested_at IS
    'The next run retries the image whatever the reason; null once it did';
COMMENT ON COLUMN catalog.item_failures.ignored_at IS
    'No run retries these bytes, and no report counts them; other bytes under the key are tagged as usual';

-- Search quality ------------------------------------------------------------------------------------------------

CREATE TABLE catalog.recall_checks (
    recall_check_id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    space_id         integer NOT NULL REFERENCES catalog.embedding_spaces,
    category         text,
    queries          integer NOT NULL CHECK (queries > 0),
    recall           double precision NOT NULL CHECK (recall BETWEEN 0 AND 1),
    low              double precision NOT NULL,
    high             double precision NOT NULL,
    bound            double precision NOT NULL,
    p50_milliseconds double precision NOT NULL,
    p95_milliseconds double precision NOT NULL,
    checked_at       timestamptz NOT NULL DEFAULT now(),
    CHECK (low <= recall AND recall <= high)
);
CREATE INDEX recall_checks_time ON catalog.recall_checks (checked_at DESC);
COMMENT ON TABLE catalog.recall_checks IS
    'How many of the 10 true nearest images the search functions find, by `catalog check-recall`; rows of one check have the same time';
COMMENT ON COLUMN catalog.recall_checks.category IS 'A large category; null for searches without a category';
COMMENT ON COLUMN catalog.recall_checks.low IS 'Of the 95 % confidence interval of recall, as is high';
COMMENT ON COLUMN catalog.recall_checks.bound IS 'CATALOG_RECALL_BOUND at that time; the check failed if high is below it';
COMMENT ON COLUMN catalog.recall_checks.p50_milliseconds IS 'Of catalog.nearest_images with these queries, one at a time';

CREATE TABLE catalog.index_rebuilds (
    index_rebuild_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    index_name       text NOT NULL,
    reason           text NOT NULL CHECK (reason IN ('bloat', 'growth', 'recall')),
    bytes_before     bigint NOT NULL,
    bytes_after      bigint NOT NULL,
    started_at       timestamptz NOT NULL,
    finished_at      timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX index_rebuilds_latest ON catalog.index_rebuilds (index_name, finished_at DESC);
COMMENT ON TABLE catalog.index_rebuilds IS 'Indexes that `catalog care` rebuilt; each at most once a week';

-- Progress ------------------------------------------------------------------------------------------------------

-- Unlogged: a row is useful only for seconds, and is written every second or two.
CREATE UNLOGGED TABLE catalog.job_progress (
    run_id            text NOT NULL,
    task              text NOT NULL,
    stage             text NOT NULL,
    done              bigint NOT NULL,
    total             bigint,
    unit              text NOT NULL,
    epoch             integer,
    epochs            integer,
    loss              double precision,
    images_per_second double precision,
    seconds_left      double precision,
    started_at        timestamptz NOT NULL,
    updated_at        timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (run_id, task)
);
COMMENT ON TABLE catalog.job_progress IS
    'One row for each running job, which removes it when it ends; the row of a killed job stops changing';
COMMENT ON COLUMN catalog.job_progress.total IS 'What done counts up to in this stage; null if unknown';
COMMENT ON COLUMN catalog.job_progress.seconds_left IS 'Until the end of the stage, at its mean speed so far';

-- Changes -------------------------------------------------------------------------------------------------------

CREATE TABLE catalog.changes (
    change_id      bigint GENERATED ALWAYS AS IDENTITY,
    transaction_id xid8 NOT NULL DEFAULT pg_current_xact_id(),
    product_id     text,
    kind           text NOT NULL CHECK (kind IN ('tag', 'label', 'images', 'classifier_switch', 'encoder_switch')),
    happened_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (transaction_id, change_id),
    CHECK ((product_id IS NULL) = (kind IN ('classifier_switch', 'encoder_switch')))
);
COMMENT ON TABLE catalog.changes IS
    'The change feed: triggers append a row for each product in the transaction that changes what is said about it. '
    'Read catalog.readable_changes, and look up the current state';
COMMENT ON COLUMN catalog.changes.transaction_id IS
    'Rows become visible in the order of commits, so the order of the feed is (transaction_id, change_id)';
COMMENT ON COLUMN catalog.changes.product_id IS
    'Null for the switch of a model, which concerns all products. No foreign key: the row outlives the product';
COMMENT ON COLUMN catalog.changes.kind IS
    'tag: publish changed the product tag; label: a label was added or undone; images: an image was added to the '
    'product, deleted, returned or moved';

CREATE TABLE catalog.change_horizon (
    is_only        boolean PRIMARY KEY DEFAULT true CHECK (is_only),
    transaction_id xid8 NOT NULL,
    change_id      bigint NOT NULL
);
COMMENT ON TABLE catalog.change_horizon IS
    'The last change that was deleted for its age, if any. A reader that has not reached it has missed changes';

CREATE TABLE catalog.change_consumers (
    consumer       text PRIMARY KEY CHECK (consumer ~ '^[A-Za-z0-9_./-]{1,100}$'),
    transaction_id xid8 NOT NULL,
    change_id      bigint NOT NULL,
    advanced_at    timestamptz NOT NULL DEFAULT now(),
    failing_since  timestamptz,
    last_error     text,
    CHECK ((failing_since IS NULL) = (last_error IS NULL))
);
COMMENT ON TABLE catalog.change_consumers IS
    'How far each reader of the feed has read: `catalog changes --consumer NAME`, and webhook/NAME for webhooks';
COMMENT ON COLUMN catalog.change_consumers.advanced_at IS 'When it last advanced; without changes, it stays';
COMMENT ON COLUMN catalog.change_consumers.failing_since IS
    'When a webhook first failed to accept the changes that are next; null once it accepts them';

CREATE TABLE catalog.dead_letters (
    dead_letter_id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    webhook            text NOT NULL,
    changes            jsonb NOT NULL,
    error              text NOT NULL,
    failed_at          timestamptz NOT NULL DEFAULT now(),
    retry_requested_at timestamptz
);
COMMENT ON TABLE catalog.dead_letters IS
    'Changes that a webhook did not accept and that were skipped. `catalog dead-letters retry` sends them again';
COMMENT ON COLUMN catalog.dead_letters.changes IS
    'Without the state of the products, which a retry looks up, so that it never sends an outdated one';

-- Statement-level triggers with transition tables: no statement can forget to append, and each product gets one row.
-- EXCEPT finds the rows that differ without a join, whose cached plan might not fit the next number of rows.
CREATE FUNCTION catalog.append_product_tag_changes() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    live constant integer := (SELECT model_version_id FROM catalog.live_models WHERE kind = 'classifier');
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO catalog.changes (product_id, kind)
        SELECT product_id, 'tag' FROM new_rows WHERE classifier_version_id = live;
    ELSIF TG_OP = 'DELETE' THEN
        INSERT INTO catalog.changes (product_id, kind)
        SELECT product_id, 'tag' FROM old_rows WHERE classifier_version_id = live;
    ELSE
        INSERT INTO catalog.changes (product_id, kind)
        SELECT product_id, 'tag' FROM (
            SELECT product_id, category, confidence, images, images_disagree FROM new_rows
            WHERE classifier_version_id = live
            EXCEPT
            SELECT product_id, category, confidence, images, images_disagree FROM old_rows
            WHERE classifier_version_id = live
        ) changed;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER inserted_product_tags_are_changes AFTER INSERT ON catalog.product_tags
    REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION catalog.append_product_tag_changes();
CREATE TRIGGER updated_product_tags_are_changes AFTER UPDATE ON catalog.product_tags
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION catalog.append_product_tag_changes();
CREATE TRIGGER deleted_product_tags_are_changes AFTER DELETE ON catalog.product_tags
    REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION catalog.append_product_tag_changes();

-- Always one row, even if the label seems to change nothing: a concurrent transaction may be changing what it depends
-- on. The lock makes a concurrent move of the image to another product wait, which would otherwise go unnoticed.
CREATE FUNCTION catalog.append_label_changes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO catalog.changes (product_id, kind)
    SELECT DISTINCT product_id, 'label' FROM (
        SELECT i.product_id FROM catalog.images i
        WHERE i.image_id IN (SELECT image_id FROM labels_changed) ORDER BY i.image_id FOR SHARE
    ) labeled;
    RETURN NULL;
END $$;
CREATE TRIGGER inserted_labels_are_changes AFTER INSERT ON catalog.labels
    REFERENCING NEW TABLE AS labels_changed FOR EACH STATEMENT EXECUTE FUNCTION catalog.append_label_changes();
CREATE TRIGGER deleted_labels_are_changes AFTER DELETE ON catalog.labels
    REFERENCING OLD TABLE AS labels_changed FOR EACH STATEMENT EXECUTE FUNCTION catalog.append_label_changes();

CREATE FUNCTION catalog.append_image_changes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        -- Nothing was said about a product that gets its first images.
        INSERT INTO catalog.changes (product_id, kind)
        SELECT n.product_id, 'images' FROM (
            SELECT product_id, count(*) AS added FROM new_rows GROUP BY product_id
        ) n
        WHERE n.added < (
            -- The limit keeps the count short.
            SELECT count(*) FROM (
                SELECT FROM catalog.images i WHERE i.product_id = n.product_id LIMIT n.added + 1
            ) counted
        );
    ELSIF TG_OP = 'DELETE' THEN
        INSERT INTO catalog.changes (product_id, kind) SELECT DISTINCT product_id, 'images' FROM old_rows;
    ELSE
        INSERT INTO catalog.changes (product_id, kind)
        SELECT DISTINCT product_id, 'images' FROM (
            (
                SELECT image_id, product_id, deleted_at IS NULL FROM old_rows
                EXCEPT SELECT image_id, product_id, deleted_at IS NULL FROM new_rows
            )
            UNION ALL
            (
                SELECT image_id, product_id, deleted_at IS NULL FROM new_rows
                EXCEPT SELECT image_id, product_id, deleted_at IS NULL FROM old_rows
            )
        ) changed;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER inserted_images_are_changes AFTER INSERT ON catalog.images
    REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION catalog.append_image_changes();
CREATE TRIGGER updated_images_are_changes AFTER UPDATE ON catalog.images
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION catalog.append_image_changes();
CREATE TRIGGER deleted_images_are_changes AFTER DELETE ON catalog.images
    REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION catalog.append_image_changes();

CREATE FUNCTION catalog.append_switch() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO catalog.changes (kind) VALUES (NEW.kind || '_switch');
    RETURN NULL;
END $$;
CREATE TRIGGER switches_are_changes AFTER INSERT ON catalog.switches
    FOR EACH ROW EXECUTE FUNCTION catalog.append_switch();

-- Erasure -------------------------------------------------------------------------------------------------------

-- Without keys and hashes: the record must not contain what was erased.
CREATE TABLE catalog.erasures (
    erasure_id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    image_ids    bigint[] NOT NULL,
    snapshots    text[] NOT NULL,
    started_at   timestamptz NOT NULL DEFAULT now(),
    erased_at    timestamptz,
    rewritten_at timestamptz
);
COMMENT ON TABLE catalog.erasures IS
    'What `catalog forget` erased, by ids of images that exist nowhere else';
COMMENT ON COLUMN catalog.erasures.snapshots IS 'Snapshots that contained the images';
COMMENT ON COLUMN catalog.erasures.erased_at IS
    'When the rows of the images were deleted, after all files in the artifacts; null before, and after a kill';
COMMENT ON COLUMN catalog.erasures.rewritten_at IS
    'When the files of the tables were rewritten without the bytes of the deleted rows; null before';
