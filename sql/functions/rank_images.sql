-- The heart of every search. An HNSW index visits vectors in an order that no category follows, so that it finds too
-- few of a rare one: few candidates are compared one by one, and so are all when the index gives too few.
CREATE OR REPLACE FUNCTION catalog.rank_images(
    query_vector halfvec, space_id integer, k bigint, category text, by_product boolean, excluded_image_id bigint
) RETURNS TABLE (image_id bigint, similarity real)
LANGUAGE plpgsql STABLE ROWS 10
SET search_path FROM CURRENT
SET hnsw.iterative_scan = strict_order
-- Of a million vectors 97 % and more of the true neighbours: docs/benchmarks.md.
SET hnsw.ef_search = 400
-- The extension's own, named so that what is set below ends with the function.
SET hnsw.max_scan_tuples = 20000
AS $$
DECLARE
    few constant integer := 20000;
    dimensions constant integer := catalog.check_query(query_vector, space_id, k);
    -- Planned for each category: a plan for any reads all images to find a hundred.
    list_candidates constant text := 'SELECT ARRAY (SELECT * FROM catalog.candidate_images($1, $2) LIMIT $3)';
    candidates bigint[];
    image_ids bigint[];
    similarities real[];
BEGIN
    IF category IS NOT NULL THEN
        EXECUTE list_candidates INTO candidates USING category, by_product, few + 1;
    END IF;
    IF category IS NULL OR cardinality(candidates) > few THEN
        IF category IS NOT NULL THEN
            -- Where hardly any of the nearest is of the category, a scan that goes on finds some, and not the nearest;
            -- to compare all is faster by then.
            PERFORM set_config('hnsw.max_scan_tuples', '1000', true);
        END IF;
        EXECUTE format($sql$
            SELECT array_agg(n.image_id), array_agg(n.similarity)
            FROM (
                SELECT e.image_id, 1 - (e.embedding::halfvec(%1$s) <=> $1) AS similarity
                FROM catalog.image_embeddings e
                WHERE e.space_id = %2$s AND e.image_id IS DISTINCT FROM $3 AND catalog.is_answer(e.image_id, $4, $5)
                ORDER BY e.embedding::halfvec(%1$s) <=> $1
                LIMIT $2
            ) n
        $sql$, dimensions, space_id)
        INTO image_ids, similarities USING query_vector, k, excluded_image_id, category, by_product;
        IF cardinality(image_ids) = k THEN
            RETURN QUERY SELECT * FROM unnest(image_ids, similarities);
            RETURN;
        END IF;
        IF category IS NULL THEN
            candidates := ARRAY (SELECT i.image_id FROM catalog.images i WHERE i.deleted_at IS NULL);
        ELSE
            EXECUTE list_candidates INTO candidates USING category, by_product, NULL::integer;
        END IF;
    END IF;

    -- OFFSET 0 has the candidates sorted first, and only the nearest asked whether they are an answer.
    RETURN QUERY EXECUTE format($sql$
        SELECT n.image_id, n.similarity
        FROM (
            SELECT e.image_id, (1 - (e.embedding <=> $1))::real AS similarity
            FROM catalog.image_embeddings e
            WHERE e.space_id = %1$s AND e.image_id = ANY ($6) AND e.image_id IS DISTINCT FROM $3
            ORDER BY e.embedding <=> $1, e.image_id
            OFFSET 0
        ) n
        WHERE catalog.is_answer(n.image_id, $4, $5)
        LIMIT $2
    $sql$, space_id) USING query_vector, k, excluded_image_id, category, by_product, candidates;
END $$;

COMMENT ON FUNCTION catalog.rank_images IS
    'Internal: the k images nearest to a vector, of a category if one is given, of their own or of their product';
