CREATE OR REPLACE FUNCTION catalog.rank_products(
    query_vector halfvec, space_id integer, k bigint, category text, excluded_product_id text
) RETURNS TABLE (product_id text, image_id bigint, similarity real)
LANGUAGE plpgsql STABLE ROWS 10 AS $$
DECLARE
    wanted bigint := 4 * k;
    image_ids bigint[];
    similarities real[];
BEGIN
    LOOP
        SELECT array_agg(r.image_id), array_agg(r.similarity) INTO image_ids, similarities
        FROM catalog.rank_images(query_vector, space_id, wanted, category, true, NULL) r;
        -- Fewer than wanted: there are no more.
        EXIT WHEN coalesce(cardinality(image_ids), 0) < wanted OR k <= (
            SELECT count(DISTINCT i.product_id) FROM catalog.images i
            WHERE i.image_id = ANY (image_ids) AND i.product_id IS DISTINCT FROM excluded_product_id
        );
        wanted := 4 * wanted;
    END LOOP;

    RETURN QUERY
    SELECT best.*
    FROM (
        SELECT DISTINCT ON (i.product_id) i.product_id, r.image_id, r.similarity
        FROM unnest(image_ids, similarities) AS r (image_id, similarity)
        JOIN catalog.images i ON i.image_id = r.image_id AND i.product_id IS DISTINCT FROM excluded_product_id
        ORDER BY i.product_id, r.similarity DESC, r.image_id
    ) best
    ORDER BY best.similarity DESC, best.product_id
    LIMIT k;
END $$;

COMMENT ON FUNCTION catalog.rank_products IS
    'Internal: the k products nearest to a vector, each by its best image; ranks more images until k are found';
