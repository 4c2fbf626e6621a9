-- The farther the query is from all images, the less the signs say about their order. So candidates are added until the
-- farther half contributes at most a tenth of the result: docs/decisions/large-catalogs.md.
CREATE OR REPLACE FUNCTION catalog.images_by_binary_index(
    query_vector halfvec, space_id integer, k bigint, excluded_image_id bigint
) RETURNS TABLE (image_id bigint, similarity real)
LANGUAGE plpgsql STABLE ROWS 10
SET search_path FROM CURRENT
SET hnsw.iterative_scan = strict_order
SET hnsw.ef_search = 400
SET hnsw.max_scan_tuples = 20000
AS $$
DECLARE
    enough constant bigint := 6400;
    wanted bigint := greatest(400, 10 * k);
    candidates bigint;
    from_farther_half bigint;
    image_ids bigint[];
    similarities real[];
BEGIN
    LOOP
        EXECUTE format($sql$
            WITH candidates AS MATERIALIZED (
                SELECT row_number() OVER () AS place, n.image_id, n.embedding <=> $1 AS distance
                FROM (
                    SELECT e.image_id, e.embedding FROM catalog.image_embeddings e
                    WHERE e.space_id = %2$s AND e.image_id IS DISTINCT FROM $3
                    ORDER BY binary_quantize(e.embedding)::bit(%1$s) <~> binary_quantize($1)::bit(%1$s)
                    LIMIT $4
                ) n
            ), nearest AS (
                -- OFFSET 0: sort the candidates first, and check only the nearest with is_result.
                SELECT * FROM (SELECT * FROM candidates ORDER BY distance, image_id OFFSET 0) c
                WHERE catalog.is_result(c.image_id, NULL, NULL)
                LIMIT $2
            )
            SELECT array_agg(image_id), array_agg((1 - distance)::real), count(*) FILTER (WHERE place > $4 / 2),
                   (SELECT count(*) FROM candidates)
            FROM nearest
        $sql$, vector_dims(query_vector), space_id)
        INTO image_ids, similarities, from_farther_half, candidates
        USING query_vector, k, excluded_image_id, wanted;
        EXIT WHEN candidates < wanted OR cardinality(image_ids) = k AND (from_farther_half <= k / 10 OR wanted >= enough);
        wanted := 4 * wanted;
    END LOOP;
    RETURN QUERY SELECT * FROM unnest(image_ids, similarities);
END $$;

COMMENT ON FUNCTION catalog.images_by_binary_index IS
    'Internal: images near a vector: those whose signs are nearest in the index, ranked by their vectors';
