CREATE OR REPLACE FUNCTION catalog.images_by_index(
    query_vector halfvec, space_id integer, k bigint, excluded_image_id bigint
) RETURNS TABLE (image_id bigint, similarity real)
LANGUAGE plpgsql STABLE ROWS 10
SET search_path FROM CURRENT
SET hnsw.iterative_scan = strict_order
-- Finds at least 97 % of the true neighbors among a million vectors: docs/benchmarks.md.
SET hnsw.ef_search = 400
SET hnsw.max_scan_tuples = 20000
AS $$
BEGIN
    IF catalog.has_binary_index(space_id) THEN
        RETURN QUERY SELECT * FROM catalog.images_by_binary_index(query_vector, space_id, k, excluded_image_id);
        RETURN;
    END IF;
    RETURN QUERY EXECUTE format($sql$
        SELECT e.image_id, (1 - (e.embedding::halfvec(%1$s) <=> $1))::real
        FROM catalog.image_embeddings e
        WHERE e.space_id = %2$s AND e.image_id IS DISTINCT FROM $3 AND catalog.is_result(e.image_id, NULL, NULL)
        ORDER BY e.embedding::halfvec(%1$s) <=> $1
        LIMIT $2
    $sql$, vector_dims(query_vector), space_id) USING query_vector, k, excluded_image_id;
END $$;

COMMENT ON FUNCTION catalog.images_by_index IS
    'Internal: images near a vector, found by the HNSW index; fewer than k if too many were deleted';
