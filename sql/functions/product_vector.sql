CREATE OR REPLACE FUNCTION catalog.product_vector(product_id text) RETURNS halfvec
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT AS $$
DECLARE
    live_space_id constant integer := catalog.live_space();
    images bigint[] := ARRAY (
        SELECT i.image_id FROM catalog.images i
        WHERE i.product_id = product_vector.product_id AND i.deleted_at IS NULL
    );
    mean halfvec;
BEGIN
    SELECT avg(e.embedding) INTO mean FROM catalog.image_embeddings e
    WHERE e.space_id = live_space_id AND e.image_id = ANY (images);
    IF images = '{}' THEN
        RAISE EXCEPTION 'product % has no image in the catalog', quote_nullable(product_vector.product_id)
            USING ERRCODE = 'no_data_found', HINT = 'catalog.current_product_tags lists the products that have.';
    ELSIF mean IS NULL THEN
        RAISE EXCEPTION 'product % has no image with a vector yet', quote_literal(product_vector.product_id)
            USING ERRCODE = 'no_data_found',
                  HINT = 'Run `catalog ingest`; catalog.item_failures says why an image failed.';
    END IF;
    RETURN mean;
END $$;

COMMENT ON FUNCTION catalog.product_vector IS 'The mean of the vectors of a product''s images in the live space';
