-- A night has a chunk for every 128 images or so: what a run adds up to is kept when it ends, since pages show many runs.

ALTER TABLE catalog.tagging_runs ADD COLUMN totals jsonb;
COMMENT ON COLUMN catalog.tagging_runs.totals IS
    'The sums over the chunks of a run that was finished and left no image out; null while more chunks can come';
