-- What the pages ask: grids of photos that are filtered and read page by page, from any point of a large catalog.

DROP INDEX catalog.image_tags_category;
CREATE INDEX image_tags_category ON catalog.image_tags (classifier_version_id, category, image_id);
CREATE INDEX image_tags_confidence ON catalog.image_tags (classifier_version_id, confidence, image_id);
CREATE INDEX image_tags_time ON catalog.image_tags (classifier_version_id, tagged_at, image_id);
CREATE INDEX images_deleted ON catalog.images (image_id) WHERE deleted_at IS NOT NULL;
CREATE INDEX product_tags_disagreeing ON catalog.product_tags (classifier_version_id, product_id)
    WHERE photos_disagree;
CREATE INDEX products_words ON catalog.products USING gin (to_tsvector('simple', coalesce(display_name, '')));
CREATE INDEX products_prefix ON catalog.products (product_id text_pattern_ops);
CREATE INDEX labels_category ON catalog.labels (category, image_id);
CREATE INDEX tagging_runs_time ON catalog.tagging_runs (started_at DESC);
CREATE INDEX item_failures_open ON catalog.item_failures (image_id) WHERE resolved_at IS NULL;
