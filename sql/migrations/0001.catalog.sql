-- The catalog: what the shop has, what the models said of it, and which models said it.
-- A released migration never changes; sql/migrations/frozen.txt holds its hash.

CREATE SCHEMA catalog;
CREATE EXTENSION IF NOT EXISTS vector;

-- What the shop sells -------------------------------------------------------------------------------------------

CREATE TABLE catalog.products (
    product_id    text PRIMARY KEY,
    display_name  text,
    description   text,
    shop_category text,
    updated_at    timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE catalog.products IS 'What the shop sells; product_id is read from the object key by CATALOG_PRODUCT_ID_PATTERN';
COMMENT ON COLUMN catalog.products.shop_category IS 'What the shop''s own products file says; never used as a label';

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
    UNIQUE (bucket, object_key)
);
CREATE INDEX images_product ON catalog.images (product_id);
CREATE INDEX images_content ON catalog.images (content_hash);
COMMENT ON COLUMN catalog.images.etag IS 'As the bucket lists it now';
COMMENT ON COLUMN catalog.images.content_hash IS 'sha256 of the bytes under this etag; null until they were read, and again when the etag changes';
COMMENT ON COLUMN catalog.images.width IS 'Pixels after EXIF orientation';
COMMENT ON COLUMN catalog.images.deleted_at IS 'When the object was first missing from the bucket; such an image is in no answer';

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
    code_version     text NOT NULL,
    metrics          jsonb NOT NULL DEFAULT '{}',
    created_at       timestamptz NOT NULL DEFAULT now(),
    UNIQUE (kind, artifact_uri),
    UNIQUE (model_version_id, kind),
    CHECK ((kind = 'classifier') = (categories IS NOT NULL)),
    CHECK ((kind = 'encoder') = (dimensions IS NOT NULL))
);
COMMENT ON COLUMN catalog.model_versions.categories IS 'In the order of the classifier''s outputs';

CREATE TABLE catalog.promotions (
    promotion_id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind                text NOT NULL CHECK (kind IN ('classifier', 'encoder')),
    model_version_id    integer NOT NULL,
    replaced_version_id integer,
    promoted_by         text NOT NULL,
    reason              text NOT NULL,
    promoted_at         timestamptz NOT NULL DEFAULT now(),
    FOREIGN KEY (model_version_id, kind) REFERENCES catalog.model_versions (model_version_id, kind),
    FOREIGN KEY (replaced_version_id, kind) REFERENCES catalog.model_versions (model_version_id, kind)
);
CREATE INDEX promotions_latest ON catalog.promotions (kind, promotion_id DESC);
COMMENT ON TABLE catalog.promotions IS 'Append-only: the champion of a kind is its latest promotion, a rollback is one more row';

CREATE FUNCTION catalog.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'catalog.% is append-only', TG_TABLE_NAME USING HINT = 'Insert a new row instead.';
END $$;
CREATE TRIGGER promotions_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON catalog.promotions
    FOR EACH STATEMENT EXECUTE FUNCTION catalog.refuse_change();

-- What models and people said -----------------------------------------------------------------------------------

CREATE TABLE catalog.embedding_spaces (
    space_id           integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    encoder_version_id integer NOT NULL UNIQUE REFERENCES catalog.model_versions,
    dimensions         integer NOT NULL CHECK (dimensions BETWEEN 1 AND 4000),
    state              text NOT NULL DEFAULT 'building' CHECK (state IN ('building', 'live', 'retired')),
    created_at         timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX embedding_spaces_one_live ON catalog.embedding_spaces (state) WHERE state = 'live';
COMMENT ON TABLE catalog.embedding_spaces IS 'All vectors of one encoder; vectors of two spaces are never comparable';

-- One partition and one HNSW index for each space; jobs create both when a space is opened.
CREATE TABLE catalog.image_embeddings (
    space_id     integer NOT NULL REFERENCES catalog.embedding_spaces,
    image_id     bigint NOT NULL REFERENCES catalog.images,
    content_hash bytea NOT NULL,
    embedding    halfvec NOT NULL,
    embedded_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (space_id, image_id)
) PARTITION BY LIST (space_id);
ALTER TABLE catalog.image_embeddings ALTER COLUMN embedding SET STORAGE PLAIN;
CREATE INDEX image_embeddings_content ON catalog.image_embeddings (content_hash);
COMMENT ON COLUMN catalog.image_embeddings.embedding IS 'Unit length, rounded to half precision';

CREATE TABLE catalog.image_tags (
    image_id              bigint NOT NULL REFERENCES catalog.images,
    classifier_version_id integer NOT NULL REFERENCES catalog.model_versions,
    category              text NOT NULL,
    confidence            real NOT NULL CHECK (confidence BETWEEN 0 AND 1),
    top_3                 jsonb NOT NULL,
    probabilities         real[] NOT NULL,
    content_hash          bytea NOT NULL,
    tagged_at             timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (image_id, classifier_version_id)
);
CREATE INDEX image_tags_category ON catalog.image_tags (classifier_version_id, category);
CREATE INDEX image_tags_content ON catalog.image_tags (content_hash, classifier_version_id);
COMMENT ON COLUMN catalog.image_tags.top_3 IS 'Up to three {"category", "confidence"}, best first';
COMMENT ON COLUMN catalog.image_tags.probabilities IS 'In the order of model_versions.categories';
COMMENT ON COLUMN catalog.image_tags.content_hash IS 'sha256 of the bytes that the model saw';

CREATE TABLE catalog.product_tags (
    product_id            text NOT NULL REFERENCES catalog.products,
    classifier_version_id integer NOT NULL REFERENCES catalog.model_versions,
    category              text NOT NULL,
    confidence            real NOT NULL CHECK (confidence BETWEEN 0 AND 1),
    photos                integer NOT NULL,
    photos_disagree       boolean NOT NULL,
    fused_from            text NOT NULL,
    tagged_at             timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (product_id, classifier_version_id)
);
COMMENT ON COLUMN catalog.product_tags.fused_from IS 'md5 of the photos'' ids and times of tagging: another value means fuse anew';
CREATE INDEX product_tags_category ON catalog.product_tags (classifier_version_id, category);

CREATE TABLE catalog.labels (
    label_id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    image_id    bigint NOT NULL REFERENCES catalog.images,
    category    text NOT NULL,
    labelled_by text NOT NULL,
    labelled_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX labels_latest ON catalog.labels (image_id, label_id DESC);
COMMENT ON TABLE catalog.labels IS 'Human truth: the latest label of an image wins over every tag';

CREATE TABLE catalog.text_queries (
    query_text         text NOT NULL CHECK (octet_length(query_text) <= 2000),
    encoder_version_id integer NOT NULL REFERENCES catalog.model_versions,
    embedding          halfvec NOT NULL,
    embedded_at        timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (query_text, encoder_version_id)
);
COMMENT ON TABLE catalog.text_queries IS 'Texts that `python -m jobs embed-text` has embedded, for catalog.search_products';

-- Runs ----------------------------------------------------------------------------------------------------------

CREATE TABLE catalog.tagging_runs (
    run_id                text PRIMARY KEY,
    source_uri            text NOT NULL,
    manifest_uri          text NOT NULL,
    classifier_version_id integer NOT NULL REFERENCES catalog.model_versions,
    encoder_version_id    integer NOT NULL REFERENCES catalog.model_versions,
    space_id              integer NOT NULL REFERENCES catalog.embedding_spaces,
    state                 text NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'succeeded', 'failed')),
    discovered            jsonb NOT NULL,
    entries               integer NOT NULL,
    entries_by_reason     jsonb NOT NULL,
    report                jsonb,
    started_at            timestamptz NOT NULL DEFAULT now(),
    finished_at           timestamptz
);

COMMENT ON COLUMN catalog.tagging_runs.discovered IS 'Images by how the listing differed from the catalog: new, changed, restored, unchanged, vanished';

CREATE TABLE catalog.run_shards (
    run_id  text NOT NULL REFERENCES catalog.tagging_runs,
    shard   integer NOT NULL,
    entries integer NOT NULL,
    chunks  integer NOT NULL,
    PRIMARY KEY (run_id, shard)
);

CREATE TABLE catalog.run_chunks (
    run_id          text NOT NULL,
    shard           integer NOT NULL,
    chunk           integer NOT NULL,
    entries         integer NOT NULL,
    tagged          integer NOT NULL,
    reused          integer NOT NULL,
    failed          integer NOT NULL,
    failure_reasons jsonb NOT NULL,
    read_seconds    double precision NOT NULL,
    decode_seconds  double precision NOT NULL,
    predict_seconds double precision NOT NULL,
    write_seconds   double precision NOT NULL,
    wall_seconds    double precision NOT NULL,
    committed_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (run_id, shard, chunk),
    FOREIGN KEY (run_id, shard) REFERENCES catalog.run_shards,
    CHECK (entries = tagged + reused + failed)
);
COMMENT ON TABLE catalog.run_chunks IS 'The ledger: a chunk is here if and only if its tags, vectors and failures are committed';

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
    resolved_at     timestamptz
);
COMMENT ON COLUMN catalog.item_failures.etag IS 'The bytes that failed: they are asked again only when they change or the reason is one that time cures';
COMMENT ON COLUMN catalog.item_failures.resolved_at IS 'When a later run tagged the image';
