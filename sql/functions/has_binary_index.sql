CREATE OR REPLACE FUNCTION catalog.has_binary_index(space_id integer) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT EXISTS (
        SELECT FROM pg_attribute a
        WHERE a.attrelid = to_regclass(format('catalog.image_embeddings_%s_hnsw', space_id))
          AND a.attnum = 1 AND a.atttypid = 'bit'::regtype
    )
$$;

COMMENT ON FUNCTION catalog.has_binary_index IS
    'Internal: whether the index of a space contains only the signs of its vectors, as in large catalogs';
