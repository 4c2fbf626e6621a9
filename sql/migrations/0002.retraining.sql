-- Retraining: what there is to learn from, what was learned, how it was judged, and which models answer.

-- Labels and data sets ------------------------------------------------------------------------------------------

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
COMMENT ON TABLE catalog.examples IS 'Photos with a label, which models learn from; their bytes lie in the artifacts under their content hash';
COMMENT ON COLUMN catalog.examples.source IS 'Where the label comes from: a name given at the import, or "catalog" for labels of the catalog''s own images';
COMMENT ON COLUMN catalog.examples.source_key IS 'The photo''s name in its source';
COMMENT ON COLUMN catalog.examples.perceptual_hash IS '256 bits; near duplicates differ in few of them';
COMMENT ON COLUMN catalog.examples.group_name IS 'The product, photographer or other group that must not be split between training and test';

CREATE TABLE catalog.dataset_snapshots (
    snapshot_id  text PRIMARY KEY CHECK (snapshot_id ~ '^[0-9a-f]{64}$'),
    artifact_uri text NOT NULL,
    report       jsonb NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE catalog.dataset_snapshots IS 'Immutable labelled data sets, named by the hash of their rows';
COMMENT ON COLUMN catalog.dataset_snapshots.report IS 'Counts by split and category, and what was dropped and why';

CREATE TABLE catalog.split_memory (
    content_hash      bytea PRIMARY KEY CHECK (octet_length(content_hash) = 32),
    split             text NOT NULL CHECK (split IN ('train', 'test')),
    first_snapshot_id text NOT NULL REFERENCES catalog.dataset_snapshots
);
COMMENT ON TABLE catalog.split_memory IS 'Test for every photo that was ever tested on, and stays in test; train for all others of earlier snapshots';

-- Candidates ----------------------------------------------------------------------------------------------------

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
COMMENT ON TABLE catalog.trainings IS 'Which candidate a run trained, so that the run asked again does not train again';

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
    FOREIGN KEY (candidate_version_id, kind) REFERENCES catalog.model_versions (model_version_id, kind),
    FOREIGN KEY (champion_version_id, kind) REFERENCES catalog.model_versions (model_version_id, kind)
);
COMMENT ON TABLE catalog.evaluations IS 'Candidate and champion on the same frozen test images, in the same run';
COMMENT ON COLUMN catalog.evaluations.champion_version_id IS 'The champion that the candidate was compared with; null where there was none';
COMMENT ON COLUMN catalog.evaluations.artifact_uri IS 'The folder of predictions, flips, label audit and page';

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
COMMENT ON TABLE catalog.gate_decisions IS 'Append-only: the decisions of one time belong together, and the latest of an evaluation count';
COMMENT ON COLUMN catalog.gate_decisions.value IS 'Null where it was missing or not a number, which fails the gate';

ALTER TABLE catalog.promotions
    ADD COLUMN evaluation_id bigint REFERENCES catalog.evaluations;
COMMENT ON COLUMN catalog.promotions.evaluation_id IS 'What the promotion rests on; null for rollbacks';

-- Which models answer -------------------------------------------------------------------------------------------

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
COMMENT ON TABLE catalog.switches IS 'Append-only: answers come from the model of the latest switch of its kind, which follows a promotion once the whole catalog is brought over';

INSERT INTO catalog.switches (kind, model_version_id, switched_at)
SELECT DISTINCT ON (kind) kind, model_version_id, promoted_at
FROM catalog.promotions WHERE kind = 'classifier' ORDER BY kind, promotion_id DESC;

INSERT INTO catalog.switches (kind, model_version_id, switched_at)
SELECT 'encoder', encoder_version_id, created_at FROM catalog.embedding_spaces WHERE state = 'live';

-- Runs ----------------------------------------------------------------------------------------------------------

ALTER TABLE catalog.tagging_runs
    ADD COLUMN purpose text NOT NULL DEFAULT 'ingest' CHECK (purpose IN ('ingest', 'retag'));
COMMENT ON COLUMN catalog.tagging_runs.purpose IS 'ingest answers new photos by the live models, retag brings the catalog over to the champions';

ALTER TABLE catalog.run_chunks
    ADD COLUMN category_counts jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN confidence_counts jsonb NOT NULL DEFAULT '[]';
COMMENT ON COLUMN catalog.run_chunks.category_counts IS 'Images that the classifier answered in this chunk, by category; reused answers left out';
COMMENT ON COLUMN catalog.run_chunks.confidence_counts IS 'The same images in ten bins of confidence of equal width';

CREATE TABLE catalog.drift_references (
    classifier_version_id integer PRIMARY KEY REFERENCES catalog.model_versions,
    category_counts       jsonb NOT NULL,
    confidence_counts     jsonb NOT NULL,
    measured_on           text NOT NULL CHECK (measured_on IN ('test', 'catalog')),
    measured_at           timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE catalog.drift_references IS 'What a classifier''s answers looked like when it was accepted; every run is compared with it';
COMMENT ON COLUMN catalog.drift_references.confidence_counts IS 'Images in ten bins of confidence of equal width';
