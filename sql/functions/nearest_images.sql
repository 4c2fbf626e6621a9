CREATE OR REPLACE FUNCTION catalog.nearest_images(
    query_vector halfvec, space_id integer, k integer DEFAULT 10, category text DEFAULT NULL,
    excluded_image_id bigint DEFAULT NULL
) RETURNS TABLE (
    image_id bigint, product_id text, object_key text, category text, confidence real, similarity real
) LANGUAGE sql STABLE AS $$
    SELECT i.image_id, i.product_id, i.object_key, t.category, t.confidence, r.similarity
    FROM catalog.rank_images(query_vector, space_id, k, category, false, excluded_image_id) r
    -- Outer joins: an inner join with an empty table would skip the ranking and its errors.
    LEFT JOIN catalog.images i USING (image_id)
    -- OFFSET 0: look up the few tags one by one instead of reading the whole view.
    LEFT JOIN LATERAL (
        SELECT * FROM catalog.current_image_tags c WHERE c.image_id = r.image_id OFFSET 0
    ) t ON true
    ORDER BY r.similarity DESC, i.image_id
$$;

COMMENT ON FUNCTION catalog.nearest_images IS
    'The k images nearest to a vector, by cosine similarity, only those of a category if one is given. '
    'Refuses a space that is not live and a vector of another length';
