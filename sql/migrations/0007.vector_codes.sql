-- Which images of a large category are near to a vector is asked of short codes that lie together by category: to
-- compare all its vectors reads them from all over their table.

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
    'Which vectors are worth comparing; made from vectors and current tags when a run is published';
COMMENT ON COLUMN catalog.vector_codes.code IS 'The signs of the vector''s numbers, one bit each';

CREATE FUNCTION catalog.recategorise_codes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE catalog.vector_codes c SET image_category = NEW.category WHERE c.image_id = NEW.image_id;
    UPDATE catalog.vector_codes c SET product_category = NEW.category
    FROM catalog.images labelled JOIN catalog.images i USING (product_id)
    WHERE labelled.image_id = NEW.image_id AND c.image_id = i.image_id;
    RETURN NULL;
END $$;
CREATE TRIGGER labels_win_at_once AFTER INSERT ON catalog.labels
    FOR EACH ROW EXECUTE FUNCTION catalog.recategorise_codes();
