-- A text is compared with other texts, because similarities of texts to images vary less than those among images. The
-- oldest texts, so that later searches do not change the scale. The variation of the query alone is no scale: it is larger
-- for what much of the catalog shows.
CREATE OR REPLACE FUNCTION catalog.similarity_scale(query_vector halfvec, space_id integer, is_text boolean)
RETURNS TABLE (mean real, spread real, images integer)
LANGUAGE plpgsql STABLE ROWS 1 SET search_path FROM CURRENT AS $$
BEGIN
    RETURN QUERY EXECUTE format($sql$
        WITH drawn AS MATERIALIZED (
            SELECT i.image_id FROM catalog.images i ORDER BY hashint8extended(i.image_id, 0) LIMIT 300
        ), sample AS MATERIALIZED (
            SELECT e.embedding
            FROM drawn CROSS JOIN LATERAL (
                SELECT v.embedding FROM catalog.image_embeddings v
                WHERE v.space_id = %1$s AND v.image_id = drawn.image_id OFFSET 0
            ) e
        ), others AS MATERIALIZED (
            (SELECT q.embedding FROM catalog.text_queries q
             JOIN catalog.embedding_spaces s USING (encoder_version_id)
             WHERE $2 AND s.space_id = %1$s ORDER BY q.embedded_at, q.query_text LIMIT 30)
            UNION ALL
            (SELECT embedding FROM sample WHERE NOT $2 LIMIT 30)
        )
        SELECT (SELECT avg(1 - (embedding <=> $1)) FROM sample)::real,
               (SELECT sqrt(avg(v.variance)) FROM others CROSS JOIN LATERAL (
                   SELECT var_pop(1 - (sample.embedding <=> others.embedding)) AS variance FROM sample
               ) v)::real,
               (SELECT count(*) FROM sample)::integer
    $sql$, space_id) USING query_vector, is_text;
END $$;

COMMENT ON FUNCTION catalog.similarity_scale IS
    'The mean similarity of a vector to a random sample of images, and the usual standard deviation of such similarities';
