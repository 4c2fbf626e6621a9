CREATE OR REPLACE FUNCTION catalog.live_space() RETURNS integer LANGUAGE plpgsql STABLE AS $$
DECLARE
    found_id integer := (SELECT s.space_id FROM catalog.embedding_spaces s WHERE s.state = 'live');
BEGIN
    IF found_id IS NULL THEN
        RAISE EXCEPTION 'no embedding space is live yet'
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Run `catalog ingest` first.';
    END IF;
    RETURN found_id;
END $$;

COMMENT ON FUNCTION catalog.live_space IS 'The id of the live embedding space, which searches use';
