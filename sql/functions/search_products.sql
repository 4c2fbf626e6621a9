CREATE OR REPLACE FUNCTION catalog.search_products(query_text text, k integer DEFAULT 10, category text DEFAULT NULL)
RETURNS TABLE (
    product_id text, display_name text, category text, similarity real, image_id bigint, object_key text
) LANGUAGE sql STABLE AS $$
    SELECT *
    FROM catalog.nearest_products(catalog.text_vector(query_text), catalog.live_space(), k, category)
$$;

COMMENT ON FUNCTION catalog.search_products IS
    'The k products whose images fit a text best, only those of a category if one is given. '
    'The text must have been embedded: `catalog embed-text "..."`';
