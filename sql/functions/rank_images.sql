-- The heart of every search. An HNSW index visits vectors in an order that no category follows, so that it answers only
-- where none is asked for. Of a large category those are compared whose codes are near, of a small one all, and so are all
-- where index or codes give fewer than k.
CREATE OR REPLACE FUNCTION catalog.rank_images(
    query_vector halfvec, space_id integer, k bigint, category text, by_product boolean, excluded_image_id bigint
) RETURNS TABLE (image_id bigint, similarity real)
LANGUAGE plpgsql STABLE ROWS 10 AS $$
DECLARE
    few constant integer := 5000;
    -- Of 100,000 codes, those of 97 % and more of the true neighbours: docs/decisions/categories.md.
    near constant bigint := greatest(1500, 20 * k);
    candidates bigint[];
    image_ids bigint[];
    similarities real[];
BEGIN
    PERFORM catalog.check_query(query_vector, space_id, k);
    IF category IS NULL THEN
        SELECT array_agg(n.image_id), array_agg(n.similarity) INTO image_ids, similarities
        FROM catalog.images_by_index(query_vector, space_id, k, excluded_image_id) n;
    ELSIF catalog.is_large_category(space_id, category, by_product, few) THEN
        SELECT array_agg(n.image_id), array_agg(n.similarity) INTO image_ids, similarities
        FROM catalog.compare_images(
            query_vector, space_id, k, category, by_product, excluded_image_id,
            catalog.images_by_code(query_vector, space_id, category, by_product, near)
        ) n;
    END IF;
    IF cardinality(image_ids) = k THEN
        RETURN QUERY SELECT * FROM unnest(image_ids, similarities);
        RETURN;
    END IF;

    IF category IS NULL THEN
        candidates := ARRAY (SELECT i.image_id FROM catalog.images i WHERE i.deleted_at IS NULL);
    ELSE
        -- Planned for each category: a plan for any reads all images to find a hundred.
        EXECUTE 'SELECT ARRAY (SELECT * FROM catalog.candidate_images($1, $2))' INTO candidates USING category, by_product;
    END IF;
    RETURN QUERY
    SELECT * FROM catalog.compare_images(
        query_vector, space_id, k, category, by_product, excluded_image_id, candidates
    );
END $$;

COMMENT ON FUNCTION catalog.rank_images IS
    'Internal: the k images nearest to a vector, of a category if one is given, of their own or of their product';
