CREATE OR REPLACE FUNCTION catalog.image_vector(image_id bigint) RETURNS halfvec LANGUAGE plpgsql STABLE AS $$
DECLARE
    live_space_id constant integer := catalog.live_space();
    image record;
BEGIN
    SELECT i.deleted_at, e.embedding INTO image
    FROM catalog.images i
    LEFT JOIN catalog.image_embeddings e ON e.image_id = i.image_id AND e.space_id = live_space_id
    WHERE i.image_id = image_vector.image_id;
    IF NOT FOUND OR image.deleted_at IS NOT NULL THEN
        RAISE EXCEPTION 'image % is not in the catalog', coalesce(image_vector.image_id::text, 'null')
            USING ERRCODE = 'no_data_found', HINT = 'catalog.images lists them; those with deleted_at are gone.';
    ELSIF image.embedding IS NULL THEN
        RAISE EXCEPTION 'image % has no vector yet', image_vector.image_id
            USING ERRCODE = 'no_data_found',
                  HINT = 'Run `catalog ingest`; catalog.item_failures says why an image failed.';
    END IF;
    RETURN image.embedding;
END $$;

COMMENT ON FUNCTION catalog.image_vector IS 'The vector of an image in the live space';
