CREATE OR REPLACE FUNCTION catalog.check_query(query_vector halfvec, space_id integer, k bigint) RETURNS integer
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT AS $$
DECLARE
    space catalog.embedding_spaces;
BEGIN
    SELECT * INTO space FROM catalog.embedding_spaces s WHERE s.space_id = check_query.space_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'embedding space % does not exist', coalesce(check_query.space_id::text, 'null')
            USING ERRCODE = 'undefined_object', HINT = 'catalog.live_space() is the one to search.';
    ELSIF space.state <> 'live' THEN
        RAISE EXCEPTION 'embedding space % is %, so that it cannot be searched', space.space_id, space.state
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'catalog.live_space() is the one to search.';
    ELSIF k IS NULL OR k < 1 THEN
        RAISE EXCEPTION 'k is %, but at least one row must be asked for', coalesce(k::text, 'null')
            USING ERRCODE = 'invalid_parameter_value', HINT = 'k is the number of rows wanted, 10 if left out.';
    ELSIF query_vector IS NULL OR l2_norm(query_vector) = 0 THEN
        RAISE EXCEPTION 'the query vector is null or zero, so that nothing is similar to it'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Pass a vector that the encoder of the space made.';
    ELSIF vector_dims(query_vector) <> space.dimensions THEN
        RAISE EXCEPTION 'the query vector has % dimensions, but embedding space % has %',
            vector_dims(query_vector), space.space_id, space.dimensions
            USING ERRCODE = 'data_exception', HINT = 'Vectors of two encoders cannot be compared.';
    END IF;
    RETURN space.dimensions;
END $$;

COMMENT ON FUNCTION catalog.check_query IS
    'Internal: the dimensions of a space, or an error if the query does not fit it';
