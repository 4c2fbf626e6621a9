CREATE OR REPLACE FUNCTION catalog.text_vector(query_text text) RETURNS halfvec
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT AS $$
DECLARE
    live_space_id constant integer := catalog.live_space();
    vector_of_text halfvec;
    -- Quoted for a POSIX shell. After --, a text that starts with a dash is not an option.
    command text := 'catalog embed-text ' || CASE WHEN starts_with(query_text, '-') THEN '-- ' ELSE '' END
                    || '''' || replace(query_text, '''', '''\''''') || '''';
BEGIN
    SELECT q.embedding INTO vector_of_text
    FROM catalog.text_queries q
    JOIN catalog.embedding_spaces s USING (encoder_version_id)
    WHERE s.space_id = live_space_id AND q.query_text = text_vector.query_text;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the text % was not embedded yet', quote_nullable(query_text)
            USING ERRCODE = 'no_data_found', HINT = coalesce('Run: ' || command, 'Pass a text.');
    END IF;
    RETURN vector_of_text;
END $$;

COMMENT ON FUNCTION catalog.text_vector IS
    'The vector of a text in the live space, as `catalog embed-text` stored it';
