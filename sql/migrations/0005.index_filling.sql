ALTER TABLE catalog.run_chunks
    ADD COLUMN embedded integer NOT NULL DEFAULT 0,
    ADD COLUMN has_index boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN catalog.run_chunks.embedded IS 'Vectors that were written, copies among them';
COMMENT ON COLUMN catalog.run_chunks.has_index IS 'Whether the space had its index by then, so that each vector was added to it';
