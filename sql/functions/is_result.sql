CREATE OR REPLACE FUNCTION catalog.is_result(image_id bigint, category text, by_product boolean) RETURNS boolean
LANGUAGE plpgsql STABLE COST 1000 AS $$
DECLARE
    live_product_id text;
BEGIN
    SELECT i.product_id INTO live_product_id FROM catalog.images i
    WHERE i.image_id = is_result.image_id AND i.deleted_at IS NULL;
    IF live_product_id IS NULL OR category IS NULL THEN
        RETURN live_product_id IS NOT NULL;
    ELSIF by_product THEN
        RETURN EXISTS (SELECT FROM catalog.current_product_tags t
                       WHERE t.product_id = live_product_id AND t.category = is_result.category);
    END IF;
    RETURN EXISTS (SELECT FROM catalog.current_image_tags t
                   WHERE t.image_id = is_result.image_id AND t.category = is_result.category);
END $$;

COMMENT ON FUNCTION catalog.is_result IS
    'Internal: whether an image is in the bucket and, if a category is given, it or its product is of that category';
