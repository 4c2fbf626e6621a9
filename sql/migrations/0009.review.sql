-- What people answered when they were asked about a photo; each answer is a label too, which can be taken back.

CREATE TABLE catalog.reviews (
    review_id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    image_id              bigint NOT NULL REFERENCES catalog.images,
    classifier_version_id integer NOT NULL REFERENCES catalog.model_versions,
    model_category        text NOT NULL,
    confidence            real NOT NULL CHECK (confidence BETWEEN 0 AND 1),
    reason                text NOT NULL
        CHECK (reason IN ('low_confidence', 'photos_disagree', 'label_error', 'drifted_class', 'audit')),
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
COMMENT ON TABLE catalog.reviews IS 'Answers of people about photos that were put before them, and why these photos were';
COMMENT ON COLUMN catalog.reviews.model_category IS 'What the classifier had answered';
COMMENT ON COLUMN catalog.reviews.reason IS
    'Why this photo: audit is drawn at random, so that accuracy can be told; the others are chosen for being hard';
COMMENT ON COLUMN catalog.reviews.answer IS 'A category, or ''not clothing''';
COMMENT ON COLUMN catalog.reviews.label_id IS 'The label that the answer became; null once it is undone';

-- The order in which photos are drawn for the audit, a random one that stays.
CREATE INDEX images_audit_order ON catalog.images (hashint8extended(image_id, 0));

CREATE OR REPLACE FUNCTION catalog.recategorise_codes() RETURNS trigger LANGUAGE plpgsql AS $$
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
CREATE TRIGGER undone_labels_lose_at_once AFTER DELETE ON catalog.labels
    FOR EACH ROW EXECUTE FUNCTION catalog.recategorise_codes();
