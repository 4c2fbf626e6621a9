CREATE OR REPLACE FUNCTION catalog.nearest_products(
    query_vector halfvec, space_id integer, k integer DEFAULT 10, category text DEFAULT NULL,
    excluded_product_id text DEFAULT NULL
) RETURNS TABLE (
    product_id text, display_name text, category text, similarity real, image_id bigint, object_key text
) LANGUAGE sql STABLE AS $$
    SELECT p.product_id, p.display_name, t.category, r.similarity, i.image_id, i.object_key
    FROM catalog.rank_products(query_vector, space_id, k, category, excluded_product_id) r
    -- Outer joins: an inner join with an empty table would skip the ranking and its errors.
    LEFT JOIN catalog.products p USING (product_id)
    LEFT JOIN catalog.images i USING (image_id)
    -- OFFSET 0: look up the few tags one by one instead of reading the whole view.
    LEFT JOIN LATERAL (
        SELECT * FROM catalog.current_product_tags c WHERE c.product_id = r.product_id OFFSET 0
    ) t ON true
    ORDER BY r.similarity DESC, p.product_id
$$;

COMMENT ON FUNCTION catalog.nearest_products IS
    'The k products nearest to a vector, each by its best image, only those of a category if one is given. '
    'Refuses a space that is not live and a vector of another length';
