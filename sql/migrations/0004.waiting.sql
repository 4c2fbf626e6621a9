ALTER TABLE catalog.run_chunks ADD COLUMN waiting_seconds jsonb NOT NULL DEFAULT '{}';
COMMENT ON COLUMN catalog.run_chunks.waiting_seconds IS
    'For what nothing else could go on, by bucket, decode, forward and database, up to the writing of this chunk';
