CREATE OR REPLACE FUNCTION catalog.similar_products(product_id text, k integer DEFAULT 10, category text DEFAULT NULL)
RETURNS TABLE (
    product_id text, display_name text, category text, similarity real, image_id bigint, object_key text
) LANGUAGE sql STABLE AS $$
    SELECT *
    FROM catalog.nearest_products(catalog.product_vector(product_id), catalog.live_space(), k, category, product_id)
$$;

COMMENT ON FUNCTION catalog.similar_products IS
    'The k products most similar to the mean of a product''s images, without itself, each with its best image, '
    'only those of a category if one is given';
