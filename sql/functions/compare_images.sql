CREATE OR REPLACE FUNCTION catalog.compare_images(
    query_vector halfvec, space_id integer, k bigint, category text, by_product boolean, excluded_image_id bigint,
    candidates bigint[]
) RETURNS TABLE (image_id bigint, similarity real)
LANGUAGE plpgsql STABLE ROWS 10 SET search_path FROM CURRENT AS $$
BEGIN
    -- OFFSET 0: sort the candidates first, and check only the nearest with is_result.
    RETURN QUERY EXECUTE format($sql$
        SELECT n.image_id, n.similarity
        FROM (
            SELECT e.image_id, (1 - (e.embedding <=> $1))::real AS similarity
            FROM catalog.image_embeddings e
            WHERE e.space_id = %1$s AND e.image_id = ANY ($6) AND e.image_id IS DISTINCT FROM $3
            ORDER BY e.embedding <=> $1, e.image_id
            OFFSET 0
        ) n
        WHERE catalog.is_result(n.image_id, $4, $5)
        LIMIT $2
    $sql$, space_id) USING query_vector, k, excluded_image_id, category, by_product, candidates;
END $$;

COMMENT ON FUNCTION catalog.compare_images IS
    'Internal: the k images of a list that are nearest to a vector and pass is_result, by comparing all';
