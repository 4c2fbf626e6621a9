-- From the index alone, and no further than necessary.
CREATE OR REPLACE FUNCTION catalog.is_large_category(
    space_id integer, category text, by_product boolean, few integer
) RETURNS boolean
LANGUAGE plpgsql STABLE AS $$
DECLARE
    is_large boolean;
BEGIN
    EXECUTE format($sql$
        SELECT count(*) > $3
        FROM (SELECT FROM catalog.vector_codes c WHERE c.space_id = $1 AND c.%I = $2 LIMIT $3 + 1) counted
    $sql$, CASE WHEN by_product THEN 'product_category' ELSE 'image_category' END)
    INTO is_large USING space_id, category, few;
    RETURN is_large;
END $$;

COMMENT ON FUNCTION catalog.is_large_category IS
    'Internal: whether a category of images or products had more than a few images when the codes were updated';
