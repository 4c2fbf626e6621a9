-- Every search ends here. The HNSW index knows nothing of categories, so it is used only without one. In a large category
-- the images with the nearest codes are compared, in a small one all. All are compared, too, if index or codes find fewer
-- than k. But no search compares all images of a catalog that is so large that its index is binary.
CREATE OR REPLACE FUNCTION catalog.rank_images(
    query_vector halfvec, space_id integer, k bigint, category text, by_product boolean, excluded_image_id bigint
) RETURNS TABLE (image_id bigint, similarity real)
LANGUAGE plpgsql STABLE ROWS 10 AS $$
DECLARE
    few constant integer := 5000;
    many constant real := 200000;
    near bigint;
    candidates bigint[];
    image_ids bigint[];
    similarities real[];
BEGIN
    PERFORM catalog.check_query(query_vector, space_id, k);
    IF category IS NULL THEN
        SELECT array_agg(n.image_id), array_agg(n.similarity) INTO image_ids, similarities
        FROM catalog.images_by_index(query_vector, space_id, k, excluded_image_id) n;
    ELSIF catalog.is_large_category(space_id, category, by_product, few) THEN
        -- Contain at least 97 % of the ten true neighbors among 100,000 and a million codes: docs/decisions/categories.md.
        near := CASE WHEN catalog.estimate_codes(category, by_product) > many THEN 4000 ELSE 1500 END;
        SELECT array_agg(n.image_id), array_agg(n.similarity) INTO image_ids, similarities
        FROM catalog.compare_images(
            query_vector, space_id, k, category, by_product, excluded_image_id,
            catalog.images_by_code(query_vector, space_id, category, by_product, greatest(near, 20 * k))
        ) n;
    END IF;
    IF cardinality(image_ids) = k OR category IS NULL AND catalog.has_binary_index(space_id) THEN
        RETURN QUERY SELECT * FROM unnest(image_ids, similarities);
        RETURN;
    END IF;

    IF category IS NULL THEN
        candidates := ARRAY (SELECT i.image_id FROM catalog.images i WHERE i.deleted_at IS NULL);
    ELSE
        -- EXECUTE plans for this category. A generic plan would read all images to find a hundred.
        EXECUTE 'SELECT ARRAY (SELECT * FROM catalog.candidate_images($1, $2))' INTO candidates USING category, by_product;
    END IF;
    RETURN QUERY
    SELECT * FROM catalog.compare_images(
        query_vector, space_id, k, category, by_product, excluded_image_id, candidates
    );
END $$;

COMMENT ON FUNCTION catalog.rank_images IS
    'Internal: the k images nearest to a vector; with a category, only images or products of it';
