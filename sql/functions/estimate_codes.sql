-- From the planner's statistics, which name the most frequent categories. Counting the codes of a large category takes
-- longer than the rest of a search.
CREATE OR REPLACE FUNCTION catalog.estimate_codes(category text, by_product boolean) RETURNS real
LANGUAGE sql STABLE AS $$
    SELECT t.reltuples * s.most_common_freqs[array_position(s.most_common_vals::text::text[], category)]
    FROM pg_class t
    JOIN pg_stats s ON s.schemaname = 'catalog' AND s.tablename = 'vector_codes'
        AND s.attname = CASE WHEN by_product THEN 'product_category' ELSE 'image_category' END
    WHERE t.oid = 'catalog.vector_codes'::regclass
$$;

COMMENT ON FUNCTION catalog.estimate_codes IS
    'Internal: about how many codes a category of images or products has, in all spaces; null if that is unknown or few';
