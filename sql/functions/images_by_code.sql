CREATE OR REPLACE FUNCTION catalog.images_by_code(
    query_vector halfvec, space_id integer, category text, by_product boolean, wanted bigint
) RETURNS bigint[]
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT AS $$
DECLARE
    image_ids bigint[];
BEGIN
    EXECUTE format($sql$
        SELECT ARRAY (
            SELECT c.image_id FROM catalog.vector_codes c WHERE c.space_id = $2 AND c.%I = $3
            ORDER BY c.code <~> binary_quantize($1)
            LIMIT $4
        )
    $sql$, CASE WHEN by_product THEN 'product_category' ELSE 'image_category' END)
    INTO image_ids USING query_vector, space_id, category, wanted;
    RETURN image_ids;
END $$;

COMMENT ON FUNCTION catalog.images_by_code IS
    'Internal: the images of a category, or of products of it, whose vectors share the most signs with a vector';
