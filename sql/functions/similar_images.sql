CREATE OR REPLACE FUNCTION catalog.similar_images(image_id bigint, k integer DEFAULT 10, category text DEFAULT NULL)
RETURNS TABLE (
    image_id bigint, product_id text, object_key text, category text, confidence real, similarity real
) LANGUAGE sql STABLE AS $$
    SELECT *
    FROM catalog.nearest_images(catalog.image_vector(image_id), catalog.live_space(), k, category, image_id)
$$;

COMMENT ON FUNCTION catalog.similar_images IS
    'The k images most similar to an image, without itself, only those of a category if one is given';
